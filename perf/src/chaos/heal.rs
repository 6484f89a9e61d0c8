//! Whether all is as it was before: by the cluster's own word, by what lies on the drives, and by reading all there is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::Value;

use super::errands;
use super::exchange::{Question, ask};
use super::load::{Load, Wish};
use super::oracle::{Answer, Rule, Violation};
use super::site::Site;

/// How often it is asked.
const POLL: Duration = Duration::from_millis(100);
/// A cluster that is healed answers; but a holder may be busy, and a gateway think that one is still away.
const READ_MAX: Duration = Duration::from_secs(10);
/// How often it is looked for drives that hang.
const LOOK: Duration = Duration::from_secs(1);
/// What drives that hang may take longer, in all: their masters open them again by themselves.
const HUNG_MAX: Duration = Duration::from_secs(60);
const STATUS_BYTES_MAX: usize = 4 << 20;

/// Waits until the operator has done all, the cluster says that all nodes are up, no copy is missing and nothing is to
/// move, and what rotted is mended; takedowns that were not acknowledged are asked for again. Otherwise, what is still not
/// as it should be.
pub(crate) fn wait(
    site: &mut Site,
    load: &Load,
    within: Duration,
    told: &AtomicBool,
) -> anyhow::Result<Result<Duration, String>> {
    let (began, mut looked) = (Instant::now(), Instant::now());
    let (mut said, mut hung) = (String::new(), Duration::ZERO);
    loop {
        watch(site, load)?;
        if load.broken(Rule::Died) > 0 {
            return Ok(Err("a process died: see above".to_owned()));
        }
        ensure!(!told.load(Ordering::Relaxed), "stopped by a signal");
        load.undecided().into_iter().for_each(|number| drop(load.fulfil(&Wish::Delete(number))));
        let why = match site.errands.current().map_or_else(|| healthy(site.gateway), at_it) {
            Ok(()) if !load.undecided().is_empty() => "takedowns are not acknowledged".to_owned(),
            Ok(()) => match site.still_rotten() {
                [] => match site.says_healthy()? {
                    Ok(()) => return Ok(Ok(began.elapsed())),
                    Err(said) => format!("`deadwax status` does not end well: {said}"),
                },
                [first, rest @ ..] => format!("{first} and {} more are not mended", rest.len()),
            },
            Err(why) => format!("{why:#}"),
        };
        if looked.elapsed() > LOOK {
            if look_for_hung(site) {
                hung = (hung + looked.elapsed()).min(HUNG_MAX);
            }
            looked = Instant::now();
        }
        if why != said {
            site.journal.say(format_args!("not healed: {why}"));
        }
        if began.elapsed() > within + hung {
            let status = status(site.gateway).map_or_else(|why| format!("{why:#}"), |status| format!("{status:#}"));
            site.journal.say(format_args!("status: {status}"));
            return Ok(Err(why));
        }
        said = why;
        std::thread::sleep(POLL);
    }
}

fn at_it(step: &errands::Step) -> anyhow::Result<()> {
    bail!("the operator is not done with: {step}")
}

/// Goes on with the operator's work; notices processes that died, and how much memory they take.
pub(crate) fn watch(site: &mut Site, load: &Load) -> anyhow::Result<()> {
    for what in site.fleet.take_died()? {
        load.violated(Violation { rule: Rule::Died, what });
    }
    site.fleet.note_peaks();
    errands::advance(site)
}

/// Whether the gateway finds nothing amiss with the cluster.
fn healthy(gateway: SocketAddr) -> anyhow::Result<()> {
    let status = status(gateway)?;
    if status["healthy"] == true {
        ensure!(status["log"]["settled"] == true, "copies move, or are to");
        return Ok(());
    }
    let warnings: Vec<_> = status["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    bail!("{}", warnings.join("; "))
}

/// Whether drives hang, as far as can be told.
fn look_for_hung(site: &mut Site) -> bool {
    if let Ok(now) = status(site.gateway) {
        let is_hung = |volume: &&Value| {
            volume["state"] == "fenced" && volume["reason"].as_str().is_some_and(|why| why.contains("by itself"))
        };
        let hung = errands::nodes(&now).flat_map(errands::volumes).filter(is_hung);
        let hung = hung.map(|volume| format!("{}: {}", volume["dir"], volume["reason"])).collect();
        for what in site.hung.set(hung) {
            site.journal.say(format_args!("hangs: {what}"));
        }
    }
    site.hung.any()
}

pub(crate) fn status(gateway: SocketAddr) -> anyhow::Result<Value> {
    let mut body = Vec::new();
    let question = Question { what: "GET /v1/status".to_owned(), headers: String::new(), body: &[] };
    let mut sink = |_: u16, _: u64, part: &[u8]| {
        if body.len() < STATUS_BYTES_MAX {
            body.extend_from_slice(part);
        }
    };
    let reply = ask(gateway, &question, &mut sink).map_err(|answer| anyhow::anyhow!("the gateway: {answer:?}"))?;
    ensure!(reply.status == 200, "status {}", reply.status);
    Ok(serde_json::from_slice(&body)?)
}

/// Reads what was acknowledged, and asks for what was taken down: all of the first where `whole`, else a part of each.
pub(crate) fn sweep(site: &mut Site, load: &Load, whole: bool, told: &AtomicBool) -> anyhow::Result<()> {
    for number in load.stored() {
        let wish = Wish::Get(number, if whole { None } else { Some(0..1) });
        ensure!(!told.load(Ordering::Relaxed), "stopped by a signal");
        let answer = until(site, load, &wish, |answer| matches!(answer, Answer::Status(200 | 206 | 410)))?;
        if let Some(answer) = answer {
            let what = format!("track {number} was acknowledged, and all is healed: {answer:?}");
            load.violated(Violation { rule: Rule::AckedLost, what });
        }
    }
    for number in load.refused() {
        ensure!(!told.load(Ordering::Relaxed), "stopped by a signal");
        let answer = until(site, load, &Wish::Get(number, None), |answer| *answer == Answer::Status(410))?;
        if let Some(answer) = answer {
            let what = format!("track {number} was taken down, and all is healed: {answer:?}");
            load.violated(Violation { rule: Rule::TakedownBroken, what });
        }
    }
    Ok(())
}

/// Asks until the answer is good; the last one where none is in time.
fn until(site: &mut Site, load: &Load, wish: &Wish, good: impl Fn(&Answer) -> bool) -> anyhow::Result<Option<Answer>> {
    let (mut began, asked) = (Instant::now(), Instant::now());
    loop {
        let answer = load.fulfil(wish);
        if good(&answer) {
            return Ok(None);
        }
        if began.elapsed() > READ_MAX {
            if asked.elapsed() > HUNG_MAX || !look_for_hung(site) {
                return Ok(Some(answer));
            }
            began = Instant::now();
        }
        std::thread::sleep(POLL);
    }
}
