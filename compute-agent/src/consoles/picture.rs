//! Pictures of displays: from what a hypervisor gives to a PNG that is small enough.

use std::io::Cursor;

use protocol::agent::MAX_SCREEN_PIXELS;
use thiserror::Error;

const MAX_BYTES: usize = (MAX_SCREEN_PIXELS * MAX_SCREEN_PIXELS * 3) as usize;
/// The most that a hypervisor may give: the largest display, and a head.
pub(crate) const MAX_RAW_BYTES: usize = MAX_BYTES + 1024;

/// What was given is no picture that we know.
#[derive(Debug, Error)]
pub enum PictureError {
    #[error("the picture is broken")]
    Broken,
    #[error("the picture is too large")]
    TooLarge,
    #[error("the PNG cannot be read")]
    Decode(#[from] png::DecodingError),
    #[error("the PNG cannot be made")]
    Encode(#[from] png::EncodingError),
}

/// Three bytes for each pixel, row by row.
struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

/// A PNG of at most so many bytes of a picture that is a PNG or a PPM (`P6`, 255 levels): each side is halved until it fits.
pub(super) fn fitting(picture: &[u8], max_bytes: usize) -> Result<Vec<u8>, PictureError> {
    let mut pixels = if picture.starts_with(b"P6") { of_ppm(picture)? } else { of_png(picture)? };
    loop {
        let made = encode(&pixels)?;
        if made.len() <= max_bytes {
            return Ok(made);
        }
        if pixels.width < 2 || pixels.height < 2 {
            return Err(PictureError::TooLarge);
        }
        pixels = halved(&pixels);
    }
}

fn of_png(picture: &[u8]) -> Result<Pixels, PictureError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(picture), png::Limits { bytes: MAX_BYTES });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    check(width, height)?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or(PictureError::TooLarge)?];
    let info = reader.next_frame(&mut bytes)?;
    bytes.truncate(info.buffer_size());
    let bytes = match info.color_type {
        png::ColorType::Rgb => bytes,
        png::ColorType::Rgba => {
            bytes.chunks_exact(4).flat_map(|pixel| pixel.iter().take(3)).copied().collect()
        }
        png::ColorType::Grayscale => bytes.into_iter().flat_map(|grey| [grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => bytes.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return Err(PictureError::Broken),
    };
    Ok(Pixels { width, height, bytes })
}

/// <https://netpbm.sourceforge.net/doc/ppm.html>, without comments.
fn of_ppm(picture: &[u8]) -> Result<Pixels, PictureError> {
    let mut rest = picture;
    let mut words = [""; 4];
    for word in &mut words {
        let end = rest.iter().position(u8::is_ascii_whitespace).ok_or(PictureError::Broken)?;
        *word = std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| PictureError::Broken)?;
        rest = rest.get(end + 1..).ok_or(PictureError::Broken)?;
    }
    let number = |text: &str| text.parse::<u32>().map_err(|_| PictureError::Broken);
    let (width, height) = (number(words[1])?, number(words[2])?);
    check(width, height)?;
    let bytes = rest.get(..(width * height * 3) as usize).filter(|_| words[3] == "255");
    Ok(Pixels { width, height, bytes: bytes.ok_or(PictureError::Broken)?.to_vec() })
}

fn check(width: u32, height: u32) -> Result<(), PictureError> {
    match width.max(height) <= MAX_SCREEN_PIXELS && width.min(height) > 0 {
        true => Ok(()),
        false => Err(PictureError::TooLarge),
    }
}

fn encode(pixels: &Pixels) -> Result<Vec<u8>, PictureError> {
    let mut made = Vec::new();
    let mut encoder = png::Encoder::new(&mut made, pixels.width, pixels.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels.bytes)?;
    Ok(made)
}

/// Each pixel is the mean of four.
fn halved(pixels: &Pixels) -> Pixels {
    let (width, height) = (pixels.width / 2, pixels.height / 2);
    let row = pixels.width as usize * 3;
    let mut bytes = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height as usize {
        for x in 0..width as usize {
            for colour in 0..3 {
                let at = y * 2 * row + x * 6 + colour;
                let of = |at: usize| pixels.bytes.get(at).copied().map_or(0, u16::from);
                bytes.push(((of(at) + of(at + 3) + of(at + row) + of(at + row + 3)) / 4) as u8);
            }
        }
    }
    Pixels { width, height, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise, which no compression makes smaller.
    fn ppm(width: u32, height: u32) -> Vec<u8> {
        let mut state = 1_u32;
        let noise = (0..width * height * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        format!("P6\n{width} {height}\n255\n").into_bytes().into_iter().chain(noise).collect()
    }

    #[test]
    fn a_picture_is_made_small_enough() {
        for (max_bytes, expected) in [(1 << 20, (64, 48)), (6000, (32, 24)), (1000, (16, 12))] {
            let made = fitting(&ppm(64, 48), max_bytes).unwrap();
            assert!(made.len() <= max_bytes);
            let pixels = of_png(&made).unwrap();
            assert_eq!((pixels.width, pixels.height), expected);
            // It takes its own form, too.
            assert_eq!(fitting(&made, max_bytes).unwrap(), made);
        }
        assert!(fitting(&ppm(64, 48), 10).is_err());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let good = ppm(4, 4);
        for bad in
            [&b""[..], b"P6", b"P6 4 4 ", b"P6 0 4 255 ", b"P6 99999 99999 255 x", &good[..good.len() - 1]]
        {
            assert!(fitting(bad, 1 << 20).is_err());
        }
    }
}
