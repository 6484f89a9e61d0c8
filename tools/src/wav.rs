//! A WAV file with its tags, as bytes.
//!
//! ```text
//! "RIFF" size "WAVE"
//!   "fmt " 16    PCM, 2 channels, 44,100 Hz, 16 bits
//!   "LIST" size  "INFO", then a chunk a tag: name, size, text, NUL, padded to even
//!   "data" size  samples, left and right in turn
//! ```
//! Source: Multimedia Programming Interface and Data Specifications 1.0 (RIFF, LIST INFO).

/// Samples a second of a [`Wav`].
pub const SAMPLE_RATE_HZ: u32 = 44_100;
const CHANNELS: u16 = 2;
const SAMPLE_BYTES: u16 = 2;

/// Sound and what is said of it.
#[derive(Debug, Default)]
pub struct Wav {
    /// INFO chunk names and their texts, for example `INAM` and the title.
    pub info: Vec<([u8; 4], String)>,
    /// Left and right in turn, [`SAMPLE_RATE_HZ`] pairs a second.
    pub samples: Vec<i16>,
}

impl Wav {
    /// The file's bytes.
    ///
    /// # Panics
    /// Where they would exceed 4 GiB, which the format cannot say.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut format = Vec::with_capacity(16);
        format.extend(1_u16.to_le_bytes()); // PCM
        format.extend(CHANNELS.to_le_bytes());
        format.extend(SAMPLE_RATE_HZ.to_le_bytes());
        format.extend((SAMPLE_RATE_HZ * u32::from(CHANNELS * SAMPLE_BYTES)).to_le_bytes());
        format.extend((CHANNELS * SAMPLE_BYTES).to_le_bytes());
        format.extend((8 * SAMPLE_BYTES).to_le_bytes());

        let mut info = b"INFO".to_vec();
        for (name, text) in &self.info {
            let text = [text.as_bytes(), &[0]].concat();
            chunk(&mut info, *name, &text);
        }
        let data: Vec<u8> = self.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();

        let mut body = b"WAVE".to_vec();
        chunk(&mut body, *b"fmt ", &format);
        chunk(&mut body, *b"LIST", &info);
        chunk(&mut body, *b"data", &data);
        let mut out = Vec::with_capacity(body.len() + 8);
        chunk(&mut out, *b"RIFF", &body);
        out
    }
}

fn chunk(out: &mut Vec<u8>, name: [u8; 4], body: &[u8]) {
    let size = u32::try_from(body.len()).expect("a WAV file is shorter than 4 GiB");
    out.extend(name);
    out.extend(size.to_le_bytes());
    out.extend(body);
    // Chunks start on even offsets; the padding is not counted in the size.
    if !body.len().is_multiple_of(2) {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_the_format_says() {
        let wav = Wav { info: vec![(*b"INAM", "ab".to_owned())], samples: vec![1, -1] };
        let golden = b"RIFF\x40\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x44\xac\0\0\x10\xb1\x02\0\x04\0\x10\0\
                       LIST\x10\0\0\0INFOINAM\x03\0\0\0ab\0\0data\x04\0\0\0\x01\0\xff\xff";
        assert_eq!(wav.encode(), golden);
    }
}
