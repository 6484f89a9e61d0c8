//! `deadwax doctor`: is this machine fit to run a master?

use std::path::PathBuf;

use deadwax_node::fitness::{self, Verdict};
use serde_json::json;

use super::say;
use crate::cli::Doctor;

pub(super) fn run(doctor: &Doctor) -> anyhow::Result<bool> {
    let checks = fitness::all(doctor.dirs.iter().map(PathBuf::as_path));
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Fit);
    for check in &checks {
        let verdict = word(check.verdict);
        if doctor.json {
            let (found, advice) = (&check.found, &check.advice);
            say(json!({"name": check.name, "verdict": verdict, "found": found, "advice": advice}))?;
        } else {
            say(format_args!("{verdict:<6} {:<11} {}", check.name, check.found))?;
            if !check.advice.is_empty() {
                say(format_args!("{:18} -> {}", "", check.advice))?;
            }
        }
    }
    if !doctor.json {
        say(match worst {
            Verdict::Fit => "This machine is fit to run a master.",
            Verdict::Poor => "A master runs here, but not well: see above.",
            Verdict::Unfit => "A master does not run here: see above.",
        })?;
    }
    Ok(worst != Verdict::Unfit)
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fit => "fit",
        Verdict::Poor => "poor",
        Verdict::Unfit => "unfit",
    }
}
