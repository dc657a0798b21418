//! What the display of an instance shows.
//!
//! The picture comes from a host, which may say anything. So it is decoded within limits and encoded anew: what goes out is
//! a picture and nothing else.

use std::io::Cursor;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::agent::MAX_SCREEN_PIXELS;
use tokio::sync::Semaphore;

use super::store;
use crate::agents::asking::{Answer, ask_for_bytes};
use crate::agents::transfers::Ask;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, Path};

/// Pictures that are worked on at once by this process, each in up to twice [`MAX_DECODED_BYTES`] of memory.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Three bytes for each pixel of the largest display.
const MAX_DECODED_BYTES: usize = (MAX_SCREEN_PIXELS * MAX_SCREEN_PIXELS * 3) as usize;

/// Take a picture of the display of a running instance, a PNG. One of more than 1 MiB is made smaller.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/screenshot", tag = "instances", responses(
    (status = 200, body = Vec<u8>, content_type = "image/png"),
    (status = 503, description = "`host_unreachable`, `host_failed`"),
))]
pub(super) async fn get_instance_screenshot(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetInstanceScreenshot>(&app, (&project, &instance)).await?;
    let (conn, allowed) = reading.parts();
    let found = store::instance(conn, allowed, allowed.selector(), app.clock.now()).await?;
    let found = found.ok_or_else(ApiError::not_found)?;
    let principal = allowed.principal();
    drop(reading);
    let bytes = match ask_for_bytes(&app, found.host()?, found.id.into(), principal, Ask::Screenshot).await? {
        Answer::Bytes(bytes) => bytes,
        Answer::Refused(reason) => return Err(super::connect::refused(reason)),
        Answer::Silence => {
            let detail = "its host does not send the picture; the instance may well be running. An agent of an \
                          earlier release cannot";
            return Err(ApiError::because(ErrorCode::HostUnreachable, detail).retry_after(5));
        }
    };
    // Never closed.
    let _turn = TURNS.acquire().await.ok();
    let picture = tokio::task::spawn_blocking(move || clean(&bytes)).await.map_err(ApiError::internal)?;
    let picture = picture.map_err(|error| ApiError::caused(ErrorCode::HostFailed, error))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))], picture).into_response())
}

/// The same picture, encoded by us.
fn clean(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let limits = png::Limits { bytes: MAX_DECODED_BYTES };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    let size = reader.output_buffer_size().filter(|size| *size <= MAX_DECODED_BYTES);
    let size = size.filter(|_| width.max(height) <= MAX_SCREEN_PIXELS).ok_or("the picture is too large")?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels)?;
    let pixels = pixels.get(..info.buffer_size()).ok_or("the picture is too short")?;
    let mut picture = Vec::new();
    let mut encoder = png::Encoder::new(&mut picture, info.width, info.height);
    encoder.set_color(info.color_type);
    encoder.set_depth(info.bit_depth);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(width: u32, height: u32, comment: &str) -> Vec<u8> {
        let mut picture = Vec::new();
        let mut encoder = png::Encoder::new(&mut picture, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.add_text_chunk("Comment".to_owned(), comment.to_owned()).unwrap();
        let pixels: Vec<_> = (0..width * height * 3).map(|byte| byte as u8).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        picture
    }

    #[test]
    fn a_picture_goes_out_without_what_came_with_it() {
        let picture = clean(&encoded(7, 5, "<script>")).unwrap();
        assert!(!picture.windows(8).any(|bytes| bytes == b"<script>"));
        let mut reader = png::Decoder::new(Cursor::new(&picture)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, pixels[4]), (7, 5, 4));
    }

    #[test]
    fn what_is_no_picture_or_too_large_is_refused() {
        let good = encoded(7, 5, "x");
        for bad in [&b""[..], b"<html>", &good[..good.len() / 2], &encoded(MAX_SCREEN_PIXELS + 1, 1, "x")] {
            assert!(clean(bad).is_err());
        }
        // A few bytes that claim to be 4 GiB.
        let mut bomb = good;
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        assert!(clean(&bomb).is_err());
    }
}
