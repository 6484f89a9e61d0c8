//! From a request to its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use deadwax_track::TrackId;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::body::Body;
use crate::connection::Linger;
use crate::failure::Failure;
use crate::known::{manifest_json, tags_json};
use crate::metrics::Outcome;
use crate::worker::Worker;
use crate::{connection, status, takedowns, track_get, upload};

const JSON: &str = "application/json";
/// An unread body of at most this is read to its end, so that its connection can go on; a longer one ends it.
const UNREAD_BYTES_MAX: u64 = 256 * 1024;

/// A path of the interface.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Route {
    Tracks,
    Track(TrackId),
    Tags(TrackId),
    Manifest(TrackId),
    Takedown(u64),
    Status,
    Metrics,
    Healthz,
    Readyz,
}

impl Route {
    fn of(path: &str) -> Result<Self, Failure> {
        let unknown = || Failure::new(StatusCode::NOT_FOUND, "no_such_path", "there is no such path");
        if let Some(number) = path.strip_prefix("/v1/takedowns/") {
            let bad = |_| Failure::bad("bad_number", "a takedown's number is a decimal number");
            return number.parse().map(Self::Takedown).map_err(bad);
        }
        let Some(rest) = path.strip_prefix("/v1/tracks/") else {
            return match path {
                "/v1/tracks" => Ok(Self::Tracks),
                "/v1/status" => Ok(Self::Status),
                "/metrics" => Ok(Self::Metrics),
                "/healthz" => Ok(Self::Healthz),
                "/readyz" => Ok(Self::Readyz),
                _ => Err(unknown()),
            };
        };
        let (id, below) = rest.split_once('/').map_or((rest, None), |(id, below)| (id, Some(below)));
        let below = match below {
            None => Self::Track,
            Some("tags") => Self::Tags,
            Some("manifest") => Self::Manifest,
            Some(_) => return Err(unknown()),
        };
        id.parse().map(below).map_err(|error| Failure::bad("bad_id", format!("{error}")))
    }

    /// Its name in figures.
    const fn name(&self) -> &'static str {
        match self {
            Self::Tracks => "tracks",
            Self::Track(_) => "track",
            Self::Tags(_) => "tags",
            Self::Manifest(_) => "manifest",
            Self::Takedown(_) => "takedown",
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
        }
    }
}

/// Answers one request. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer(
    worker: Arc<Worker>,
    mut request: Request<Incoming>,
    linger: Linger,
) -> Result<Response<Body>, Infallible> {
    let began = Instant::now();
    let route = Route::of(request.uri().path());
    let mut outcome = Outcome { route: "none", method: method_name(request.method()), status: 0 };
    // Whoever waits for `100 Continue` sends a body only once it was asked for.
    let mut sends = !request.headers().contains_key(EXPECT);
    let answered = match &route {
        Ok(route) => {
            outcome.route = route.name();
            serve(&worker, route, &mut request, &mut sends).await
        }
        Err(failure) => Err(failure.clone()),
    };
    let mut response = answered.unwrap_or_else(|failure| failure.response());
    if !request.body().is_end_stream() {
        settle_unread(&mut request, sends, &mut response, &linger).await;
    }
    if request.method() == Method::HEAD {
        without_body(&mut response);
    }
    outcome.status = response.status().as_u16();
    worker.shared.metrics.answered(&outcome, began.elapsed());
    Ok(response)
}

async fn serve(
    worker: &Arc<Worker>,
    route: &Route,
    request: &mut Request<Incoming>,
    sends: &mut bool,
) -> Result<Response<Body>, Failure> {
    match (route, request.method()) {
        (Route::Track(id), &Method::GET) => track_get::get(worker, id, request.headers()).await,
        (Route::Track(id), &Method::HEAD) => track_get::head(worker, id, request.headers()).await,
        (Route::Track(id), &Method::PUT) => upload::upload(worker, request, Some(*id), sends).await,
        (Route::Track(id), &Method::DELETE) => {
            let mut response = typed(JSON, takedowns::take_down(worker, id, request.headers()).await?);
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok(response)
        }
        (Route::Track(_), _) => Err(Failure::method("GET, HEAD, PUT, DELETE")),
        (Route::Tracks, &Method::POST) => upload::upload(worker, request, None, sends).await,
        (Route::Tracks, _) => Err(Failure::method("POST")),
        (_, &Method::GET | &Method::HEAD) => show(worker, route).await,
        _ => Err(Failure::method("GET, HEAD")),
    }
}

/// What is only to be looked at.
async fn show(worker: &Arc<Worker>, route: &Route) -> Result<Response<Body>, Failure> {
    const TEXT: &str = "text/plain; charset=utf-8";
    match route {
        Route::Tags(id) => Ok(typed(JSON, tags_json(&fresh(worker, id).await?.tags))),
        Route::Manifest(id) => Ok(typed(JSON, manifest_json(&*fresh(worker, id).await?))),
        Route::Takedown(number) => Ok(typed(JSON, takedowns::show(worker, *number).await?)),
        Route::Status => Ok(typed(JSON, status::json(worker).await?)),
        Route::Metrics => {
            let shared = &worker.shared;
            let nodes = status::nodes(worker).await;
            let text = shared.metrics.text(&shared.cache.stats(), shared.known.usage(), &nodes);
            Ok(typed("application/openmetrics-text; version=1.0.0; charset=utf-8", Bytes::from(text)))
        }
        Route::Readyz => {
            status::ready(worker).await?;
            Ok(typed(TEXT, Bytes::from_static(b"ready\n")))
        }
        Route::Healthz | Route::Track(_) | Route::Tracks => Ok(typed(TEXT, Bytes::from_static(b"ok\n"))),
    }
}

async fn fresh(worker: &Arc<Worker>, id: &TrackId) -> crate::known::Found {
    let track = worker.track(id).await?;
    worker.keep_fresh(&track);
    Ok(track)
}

fn typed(content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::once(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer that may come before its request's body was read to the end: a short rest is read and dropped; otherwise
/// the connection is closed after the answer, slowly, so that a client that is still sending gets to read it.
async fn settle_unread(request: &mut Request<Incoming>, sends: bool, response: &mut Response<Body>, linger: &Linger) {
    let short = request.body().size_hint().lower() <= UNREAD_BYTES_MAX;
    if sends && short {
        let unread = drop_short(request.body_mut());
        if tokio::time::timeout(connection::LINGER, unread).await.unwrap_or(false) {
            return;
        }
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    linger.set();
}

/// Reads a body to its end, unless it is long or broken. Whether it was ended.
async fn drop_short(body: &mut Incoming) -> bool {
    let mut dropped = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        dropped += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        if dropped > UNREAD_BYTES_MAX {
            return false;
        }
    }
    true
}

fn without_body(response: &mut Response<Body>) {
    let bytes = response.body().bytes_left();
    let has_none = response.status() == StatusCode::NOT_MODIFIED;
    if !has_none && !response.headers().contains_key(CONTENT_LENGTH) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    *response.body_mut() = Body::empty();
}

/// A method's name in figures; clients may invent others without end.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        let id = TrackId::of(b"x");
        let of = |path: String| Route::of(&path).map_err(|failure| (failure.status.as_u16(), failure.code));
        assert_eq!(of(format!("/v1/tracks/{id}")), Ok(Route::Track(id)));
        assert_eq!(of(format!("/v1/tracks/{}", id.to_string().to_uppercase())), Ok(Route::Track(id)));
        assert_eq!(of(format!("/v1/tracks/{id}/tags")), Ok(Route::Tags(id)));
        assert_eq!(of(format!("/v1/tracks/{id}/manifest")), Ok(Route::Manifest(id)));
        assert_eq!(of("/v1/tracks".to_owned()), Ok(Route::Tracks));
        assert_eq!(of("/v1/takedowns/12".to_owned()), Ok(Route::Takedown(12)));
        for path in ["/v1/takedowns/", "/v1/takedowns/x", "/v1/takedowns/18446744073709551616"] {
            assert_eq!(of(path.to_owned()), Err((400, "bad_number")), "{path}");
        }
        for path in ["/", "/v1", "/v1/search", "/v1/tracks/x/y", &format!("/v1/tracks/{id}/"), "/v2/tracks"] {
            assert_eq!(of(path.to_owned()), Err((404, "no_such_path")), "{path}");
        }
        for path in ["/v1/tracks/", "/v1/tracks/xyz", &format!("/v1/tracks/{id}0"), "/v1/tracks/x/tags"] {
            assert_eq!(of(path.to_owned()), Err((400, "bad_id")), "{path}");
        }
    }
}
