//! `deadwax rm`.

use deadwax_track::TrackId;
use hyper::{Method, StatusCode};

use super::say;
use crate::backoff::Backoff;
use crate::cli::Rm;
use crate::http::Client;

pub(super) async fn run(rm: Rm) -> anyhow::Result<bool> {
    let client = Client::new(rm.asked.gateway);
    let mut well = true;
    for id in &rm.ids {
        match take_down(&client, id).await {
            Ok(number) => say(format_args!("{id} is taken down, number {number}"))?,
            Err(error) => {
                eprintln!("deadwax: {id}: {error:#}");
                well = false;
            }
        }
    }
    Ok(well)
}

/// Answers the takedown's number. Tries again while holders are away: a takedown counts only with all of them.
async fn take_down(client: &Client, id: &TrackId) -> anyhow::Result<u64> {
    let mut backoff = Backoff::request();
    loop {
        let reply = client.ask(Method::DELETE, &format!("/v1/tracks/{id}")).await?;
        let status = reply.status;
        if status.is_success() {
            let body = reply.json().await?;
            return body["takedown"].as_u64().ok_or_else(|| anyhow::anyhow!("the gateway gave no number: {body}"));
        }
        let said = anyhow::Error::msg(reply.complaint().await);
        match backoff.delay() {
            Some(delay) if status == StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(delay).await,
            _ => return Err(said),
        }
    }
}
