//! `GET` and `HEAD` of a track: conditions, ranges, headers.

use std::sync::Arc;

use deadwax_dht_client::Presence;
use deadwax_track::{ByteRange, TrackId};
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use crate::body::Body;
use crate::conditional::{self, Verdict};
use crate::download::{Part, TrackBody};
use crate::failure::Failure;
use crate::known::Track;
use crate::masters;
use crate::multipart::Multipart;
use crate::range::Wanted;
use crate::worker::Worker;

/// A track's bytes never change under its id.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// An uploaded media type is the uploader's word: browsers shall not guess beyond it.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// `GET /v1/tracks/{id}`.
pub(crate) async fn get(worker: &Arc<Worker>, id: &TrackId, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let track = worker.track(id).await?;
    if let Some(short) = conditions(&track, headers) {
        return Ok(short);
    }
    match conditional::part(headers, track.etag.as_bytes(), track.bytes()) {
        Wanted::Whole => {
            let body = body(worker, &track, [Part::Range(track.whole())]).await?;
            Ok(response(&track, StatusCode::OK, track.content_type.clone(), body))
        }
        Wanted::One(range) => {
            let body = body(worker, &track, [Part::Range(range)]).await?;
            let mut response = response(&track, StatusCode::PARTIAL_CONTENT, track.content_type.clone(), body);
            response.headers_mut().insert(CONTENT_RANGE, content_range(&range, track.bytes()));
            Ok(response)
        }
        Wanted::Many(ranges) => {
            let media_type = track.content_type.to_str().unwrap_or("application/octet-stream");
            let framed = Multipart::new(&ranges, track.bytes(), media_type, boundary()?);
            let heads = framed.heads.into_iter().map(Part::Text);
            let parts = heads.zip(ranges.into_iter().map(Part::Range)).flat_map(<[Part; 2]>::from);
            let body = body(worker, &track, parts.chain([Part::Text(framed.tail)])).await?;
            let media_type = HeaderValue::try_from(framed.content_type).expect("letters and digits");
            Ok(response(&track, StatusCode::PARTIAL_CONTENT, media_type, body))
        }
        Wanted::Nothing => Ok(unsatisfiable(&track)),
    }
}

/// `HEAD /v1/tracks/{id}`: as a GET of the whole track. Ranges are for GET only (RFC 9110, section 14.2).
pub(crate) async fn head(worker: &Arc<Worker>, id: &TrackId, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let track = worker.track(id).await?;
    worker.keep_fresh(&track);
    if let Some(short) = conditions(&track, headers) {
        return Ok(short);
    }
    let mut response = response(&track, StatusCode::OK, track.content_type.clone(), Body::empty());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(track.bytes()));
    Ok(response)
}

fn conditions(track: &Track, headers: &HeaderMap) -> Option<Response<Body>> {
    match conditional::verdict(headers, track.etag.as_bytes()) {
        Verdict::Proceed => None,
        Verdict::NotModified => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, track.etag.clone());
            response.headers_mut().insert(CACHE_CONTROL, FOREVER);
            Some(response)
        }
        Verdict::Failed => {
            let message = "the track is not one that If-Match names";
            Some(Failure::new(StatusCode::PRECONDITION_FAILED, "precondition", message).response())
        }
    }
}

/// A body whose first bytes are here. Where they cannot be had the holders are asked why: 404, 410 or 503.
async fn body(
    worker: &Arc<Worker>,
    track: &Arc<Track>,
    parts: impl IntoIterator<Item = Part>,
) -> Result<Body, Failure> {
    let mut body = TrackBody::new(Arc::clone(worker), Arc::clone(track), parts);
    let Err(cut_off) = body.prime().await else { return Ok(body.into()) };
    match worker.client.presence(track.id).await {
        Ok(Presence::TakenDown { number }) => {
            worker.forget(&track.id);
            Err(masters::failure(&deadwax_dht_client::Error::TakenDown { number }))
        }
        Ok(Presence::Absent) => {
            worker.forget(&track.id);
            Err(masters::failure(&deadwax_dht_client::Error::NotFound))
        }
        Ok(Presence::Present { .. }) => Err(Failure::unavailable("unavailable", cut_off.to_string())),
        Err(error) => Err(masters::failure(&error)),
    }
}

fn response(track: &Track, status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(ETAG, track.etag.clone());
    headers.insert(ACCEPT_RANGES, BYTES);
    headers.insert(CACHE_CONTROL, FOREVER);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

fn content_range(range: &ByteRange, track_bytes: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{track_bytes}", range.start(), range.end() - 1);
    HeaderValue::try_from(text).expect("digits")
}

fn unsatisfiable(track: &Track) -> Response<Body> {
    let message = format!("the track has {} bytes, none of the ranges is within", track.bytes());
    let mut response = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", message).response();
    let all = HeaderValue::try_from(format!("bytes */{}", track.bytes())).expect("digits");
    let pairs: [(HeaderName, HeaderValue); 2] = [(CONTENT_RANGE, all), (ACCEPT_RANGES, BYTES)];
    response.headers_mut().extend(pairs);
    response
}

fn boundary() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::unavailable("random", format!("the system gives no random bytes: {error}")))?;
    Ok(u128::from_le_bytes(bytes))
}
