//! Takes a track in: straight to its holders where the sender knows its id, through the spool where it does not.
//!
//! Refusals come before the body is read, so that a client that waits for `100 Continue` does not send it. A body is
//! stored only if it is whole and its hash is the id: each holder proves that before it keeps a streamed one, so the
//! gateway does not hash it a fourth time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use deadwax_dht_client::{AT_ONCE_BYTES_MAX, Error, Put, PutWriter, Stored};
use deadwax_track::{TRACK_BYTES_MAX, Tags, TrackId};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HeaderValue, LOCATION};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::body::Body;
use crate::failure::Failure;
use crate::masters;
use crate::spool::{SpoolWriter, Spooled};
use crate::worker::Worker;

/// The header that carries a track's tags: a JSON object of strings.
const TAGS_HEADER: &str = "deadwax-tags";
/// Media types that say nothing of a track: what clients send when they do not care.
const MEANINGLESS_TYPES: [&str; 2] = ["application/octet-stream", "application/x-www-form-urlencoded"];

/// Stores the body of `request`. `expected` is the id that the sender says it has. The request is borrowed, so that
/// the caller sees how much of the body was left unread; `sends` turns true once the body was asked for.
pub(crate) async fn upload(
    worker: &Arc<Worker>,
    request: &mut Request<Incoming>,
    expected: Option<TrackId>,
    sends: &mut bool,
) -> Result<Response<Body>, Failure> {
    let tags = tags(request.headers())?;
    whole_and_plain(request.headers())?;
    if let Some(id) = &expected {
        worker.shared.barred.check(id)?;
    }
    let length = request.body().size_hint().exact();
    if length == Some(0) {
        return Err(empty());
    }
    if length.is_some_and(|length| length > TRACK_BYTES_MAX) {
        return Err(too_large());
    }
    // Who waits to be asked for the bytes has them asked for when the holders are ready.
    let is_sent = !request.headers().contains_key(EXPECT);
    let mut body = Upload { body: request.body_mut(), sends, worker };
    match (expected, length) {
        (Some(id), Some(length)) if is_sent && length <= AT_ONCE_BYTES_MAX as u64 => {
            let bytes = body.whole(length).await?;
            store_at_once(worker, &id, bytes, &tags).await
        }
        (Some(id), Some(length)) => stream(worker, &mut body, &id, length, &tags).await,
        _ => {
            let spooled = spool(worker, &mut body).await?;
            if let Some(id) = expected.filter(|id| *id != spooled.id) {
                return Err(wrong_bytes(&id, &spooled.id));
            }
            store(worker, spooled, &tags).await
        }
    }
}

/// A part of a track, or a track in a content coding, is not a track (RFC 9110, sections 14.5 and 8.4).
fn whole_and_plain(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Failure::bad("partial", "a track is uploaded whole, Content-Range has no meaning here"));
    }
    let coded = headers.get(CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded.is_some() {
        let message = "a track is stored as it is sent, send it without Content-Encoding";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded", message));
    }
    Ok(())
}

/// A request's body, read with a limit on how long it may stand still.
struct Upload<'a> {
    body: &'a mut Incoming,
    sends: &'a mut bool,
    worker: &'a Worker,
}

impl Upload<'_> {
    /// All of a body of this length.
    async fn whole(&mut self, length: u64) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while whole.len() as u64 != length {
            let Some(bytes) = self.next().await? else { return Err(cut_off(whole.len() as u64, length)) };
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let stall = Duration::from_secs(self.worker.shared.limits.receive_stall_seconds_max);
        *self.sends = true;
        loop {
            let frame = timeout(stall, self.body.frame()).await.map_err(|_| {
                let message = format!("the upload sent nothing for {} s", stall.as_secs());
                Failure::new(StatusCode::REQUEST_TIMEOUT, "stalled", message)
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| Failure::bad("cut_off", format!("the upload was cut off: {error}")))?;
            // Trailers mean nothing here.
            if let Ok(bytes) = frame.into_data() {
                self.worker.shared.metrics.received_bytes.inc_by(bytes.len() as u64);
                return Ok(Some(bytes));
            }
        }
    }
}

/// Stores a small track whose bytes are all there.
async fn store_at_once(worker: &Worker, id: &TrackId, bytes: Bytes, tags: &Tags) -> Result<Response<Body>, Failure> {
    let length = bytes.len() as u64;
    let (stored, already) = worker.client.put_at_once(*id, bytes, tags).await.map_err(|error| refused(&error))?;
    match already {
        true if stored.bytes != length => Err(wrong_length(id, stored.bytes, length)),
        true => Ok(answer(StatusCode::OK, id, &stored)),
        false => Ok(answer(StatusCode::CREATED, id, &stored)),
    }
}

async fn stream(
    worker: &Worker,
    body: &mut Upload<'_>,
    id: &TrackId,
    length: u64,
    tags: &Tags,
) -> Result<Response<Body>, Failure> {
    let mut writer = match begin(worker, id, length, tags).await? {
        Put::Already(stored) if stored.bytes != length => return Err(wrong_length(id, stored.bytes, length)),
        Put::Already(stored) => return Ok(answer(StatusCode::OK, id, &stored)),
        Put::Writer(writer) => writer,
    };
    let mut got = 0;
    while let Some(bytes) = body.next().await? {
        // The server reads no more than Content-Length says.
        got += bytes.len() as u64;
        write(&mut writer, bytes).await?;
        if got == length {
            return finish(id, writer).await;
        }
    }
    // Dropped, the writer takes everything back.
    Err(cut_off(got, length))
}

async fn spool(worker: &Worker, body: &mut Upload<'_>) -> Result<Spooled, Failure> {
    let Some(mut writer) = worker.shared.spool.begin().await.map_err(|error| spool_failed(&error))? else {
        return Err(Failure::unavailable("busy", "as many uploads as may are being spooled, try again"));
    };
    spool_all(&mut writer, body).await?;
    writer.finish().await.map_err(|error| spool_failed(&error))?.ok_or_else(empty)
}

async fn spool_all(writer: &mut SpoolWriter, body: &mut Upload<'_>) -> Result<(), Failure> {
    let mut total = 0;
    while let Some(bytes) = body.next().await? {
        total += bytes.len() as u64;
        // Bounds the spool file, and what the hasher takes.
        if total > TRACK_BYTES_MAX {
            return Err(too_large());
        }
        writer.write(bytes).await.map_err(|error| spool_failed(&error))?;
    }
    Ok(())
}

async fn store(worker: &Worker, mut spooled: Spooled, tags: &Tags) -> Result<Response<Body>, Failure> {
    let id = spooled.id;
    // A POST says only now which track it is.
    worker.shared.barred.check(&id)?;
    let length = spooled.manifest.track_bytes();
    if length <= AT_ONCE_BYTES_MAX as u64 {
        let mut whole = BytesMut::new();
        while let Some(bytes) = spooled.read().await.map_err(|error| spool_failed(&error))? {
            whole.extend_from_slice(&bytes);
        }
        return store_at_once(worker, &id, whole.freeze(), tags).await;
    }
    let mut writer = match begin(worker, &id, length, tags).await? {
        Put::Already(stored) => return Ok(answer(StatusCode::OK, &id, &stored)),
        Put::Writer(writer) => writer,
    };
    while let Some(bytes) = spooled.read().await.map_err(|error| spool_failed(&error))? {
        write(&mut writer, bytes).await?;
    }
    finish(&id, writer).await
}

async fn begin(worker: &Worker, id: &TrackId, bytes: u64, tags: &Tags) -> Result<Put, Failure> {
    worker.client.put(*id, bytes, tags).await.map_err(|error| refused(&error))
}

async fn write(writer: &mut PutWriter, bytes: Bytes) -> Result<(), Failure> {
    writer.write(bytes).await.map_err(|error| refused(&error))
}

/// What masters find invalid in an upload is that its bytes, or their number, are not the id's.
fn refused(error: &Error) -> Failure {
    let failure = masters::failure(error);
    match error {
        Error::Invalid(_) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_bytes", failure.message),
        _ => failure,
    }
}

async fn finish(id: &TrackId, writer: PutWriter) -> Result<Response<Body>, Failure> {
    let stored = writer.finish().await.map_err(|error| refused(&error))?;
    Ok(answer(StatusCode::CREATED, id, &stored))
}

fn answer(status: StatusCode, id: &TrackId, stored: &Stored) -> Response<Body> {
    let json = serde_json::json!({
        "id": id,
        "bytes": stored.bytes,
        "pieces": stored.pieces,
        "copies": stored.copies,
        "zones": stored.zones,
    });
    let mut response = Response::new(Body::once(Bytes::from(json.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(LOCATION, HeaderValue::try_from(format!("/v1/tracks/{id}")).expect("a path of plain letters"));
    response
}

/// The tags of an upload: those of its header, and its media type unless they name one.
fn tags(headers: &HeaderMap) -> Result<Tags, Failure> {
    let mut tags = BTreeMap::<String, String>::new();
    if let Some(header) = headers.get(TAGS_HEADER) {
        tags = serde_json::from_slice(header.as_bytes())
            .map_err(|error| Failure::bad("bad_tags", format!("Deadwax-Tags is no JSON object of strings: {error}")))?;
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::trim);
    let meaningless = |media_type: &&str| {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        essence.is_empty() || MEANINGLESS_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence))
    };
    if let Some(media_type) = media_type.filter(|media_type| !meaningless(media_type)) {
        tags.entry("content_type".to_owned()).or_insert_with(|| media_type.to_owned());
    }
    Tags::new(tags).map_err(|error| Failure::bad("bad_tags", error.to_string()))
}

fn cut_off(got: u64, length: u64) -> Failure {
    Failure::bad("cut_off", format!("the upload ended after {got} of {length} bytes"))
}

fn empty() -> Failure {
    Failure::bad("empty", "a track has at least one byte, the upload has none")
}

fn too_large() -> Failure {
    let message = format!("a track has at most {TRACK_BYTES_MAX} bytes, the upload has more");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

fn wrong_bytes(expected: &TrackId, got: &TrackId) -> Failure {
    let message = format!("the uploaded bytes are track {got}, not {expected}");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_bytes", message)
}

fn wrong_length(id: &TrackId, stored: u64, sent: u64) -> Failure {
    let message = format!("track {id} has {stored} bytes, the upload has {sent}");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_bytes", message)
}

fn spool_failed(error: &std::io::Error) -> Failure {
    tracing::error!(%error, "spool directory failed");
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", "the gateway's spool directory is full")
        }
        _ => Failure::unavailable("spool_failed", format!("the gateway's spool directory failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn tags_of(pairs: &[(&'static str, &str)]) -> Result<Tags, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.insert(HeaderName::from_static(name), value);
        }
        tags(&headers)
    }

    #[test]
    fn tags_come_from_the_header_and_the_media_type() {
        let both =
            tags_of(&[("deadwax-tags", r#"{"title":"Gr\u00fc\u00dfe","album":"ü"}"#), ("content-type", "audio/ogg")]);
        let both = both.expect("good tags");
        let read = ["title", "album", "content_type"].map(|name| both.get(name).unwrap_or("-").to_owned());
        assert_eq!(read, ["Grüße", "ü", "audio/ogg"]);
        for nothing in ["application/octet-stream", "Application/X-WWW-Form-URLencoded; charset=utf-8", ""] {
            assert!(tags_of(&[("content-type", nothing)]).expect("good tags").is_empty(), "{nothing}");
        }
        let named = tags_of(&[("deadwax-tags", r#"{"content_type":"audio/flac"}"#), ("content-type", "audio/ogg")]);
        assert_eq!(named.expect("good tags").get("content_type"), Some("audio/flac"));
    }

    #[test]
    fn bad_tags_are_refused() {
        let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(20_000));
        for bad in ["", "[]", r#"{"title":1}"#, r#"{"Title":"x"}"#, r#"{"title":"x""#, "\u{e9}", &long] {
            let refused = tags_of(&[("deadwax-tags", bad)]).expect_err("bad tags");
            assert_eq!((refused.status, refused.code), (StatusCode::BAD_REQUEST, "bad_tags"), "{bad}");
        }
    }
}
