//! Plucked strings and pads: just enough to make a demo worth listening to.
//!
//! The same notes give the same bytes on every machine: only additions, multiplications and comparisons, which IEEE 754
//! fixes to the bit, and none of the functions that differ from one C library to the next.

use std::f64::consts::TAU;

use crate::wav::SAMPLE_RATE_HZ;

/// The pitches of an octave above its A: powers of the twelfth root of two.
const SEMITONES: [f64; 12] = [
    1.0,
    1.059_463_094_359_295_3,
    1.122_462_048_309_373,
    1.189_207_115_002_721,
    1.259_921_049_894_873_2,
    1.334_839_854_170_034_4,
    std::f64::consts::SQRT_2,
    1.498_307_076_876_681_5,
    1.587_401_051_968_199_4,
    1.681_792_830_507_429,
    1.781_797_436_280_678_5,
    1.887_748_625_363_387,
];

/// How a note sounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voice {
    /// Struck and left to ring.
    Pluck,
    /// Swells and fades.
    Pad,
}

/// A note in a [`Score`].
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// When it starts, in milliseconds.
    pub start_ms: u32,
    /// How long it may sound, in milliseconds.
    pub length_ms: u32,
    /// Pitch as MIDI numbers it: 69 is the A of 440 Hz.
    pub pitch: u8,
    /// From 0, left, to 1, right.
    pub pan: f64,
    /// How loud, against the other notes.
    pub level: f64,
    /// How it sounds.
    pub voice: Voice,
}

/// Notes, mixed to stereo sound of a fixed length.
#[derive(Debug)]
pub struct Score {
    left: Vec<f64>,
    right: Vec<f64>,
}

impl Score {
    /// Silence of `length_ms`.
    #[must_use]
    pub fn new(length_ms: u32) -> Self {
        let samples = sample_index(length_ms);
        Self { left: vec![0.0; samples], right: vec![0.0; samples] }
    }

    /// Mixes in a note; what would sound past the end is cut off.
    pub fn play(&mut self, note: &Note) {
        let start = sample_index(note.start_ms);
        let end = sample_index(note.start_ms + note.length_ms).min(self.left.len());
        let length = end.saturating_sub(start);
        let rate = f64::from(SAMPLE_RATE_HZ);
        let step = pitch_hz(note.pitch) / rate;
        // Below the first term of exp's series the error is far under what anyone hears.
        let decay = 1.0 - 1.0 / (rate * 0.45);
        let (mut phase, mut ring) = (0.0, 1.0);
        for index in 0..length {
            let (tone, loud) = match note.voice {
                Voice::Pluck => (pluck(phase, ring), ring),
                Voice::Pad => (pad(phase), 1.0),
            };
            let sample = tone * loud * edges(index, length, note.voice) * note.level;
            self.left[start + index] += sample * (1.0 - note.pan);
            self.right[start + index] += sample * note.pan;
            phase += step;
            if phase >= 1.0 {
                phase -= 1.0;
            }
            ring *= decay;
        }
    }

    /// Adds echoes that change sides, a fraction `level` as loud each time.
    pub fn echo(&mut self, delay_ms: u32, level: f64) {
        let delay = sample_index(delay_ms);
        for index in delay..self.left.len() {
            let (left, right) = (self.left[index - delay], self.right[index - delay]);
            self.left[index] += right * level;
            self.right[index] += left * level;
        }
    }

    /// Left and right in turn, the loudest sample at seven tenths of full scale, faded out at the end.
    #[must_use]
    pub fn samples(&self) -> Vec<i16> {
        let loudest = self.left.iter().chain(&self.right).fold(1e-9, |most: f64, sample| most.max(sample.abs()));
        let scale = 0.7 * f64::from(i16::MAX) / loudest;
        let fade = sample_index(1_500).min(self.left.len().max(1));
        let mut out = Vec::with_capacity(2 * self.left.len());
        for (index, (left, right)) in self.left.iter().zip(&self.right).enumerate() {
            let gone = fraction(self.left.len() - index, fade).min(1.0);
            out.push(to_sample(left * scale * gone));
            out.push(to_sample(right * scale * gone));
        }
        out
    }
}

#[expect(clippy::cast_possible_truncation, reason = "scaled to seven tenths of the range of i16")]
fn to_sample(level: f64) -> i16 {
    level as i16
}

fn sample_index(ms: u32) -> usize {
    let index = u64::from(ms) * u64::from(SAMPLE_RATE_HZ) / 1000;
    usize::try_from(index).expect("a song fits in memory")
}

fn fraction(part: usize, whole: usize) -> f64 {
    // Both are sample counts of a song, far below 2^53.
    part as f64 / whole as f64
}

fn pitch_hz(midi: u8) -> f64 {
    // Counted from the A of 13.75 Hz, MIDI's 9, so that nothing is negative.
    let above = usize::from(midi.saturating_sub(9));
    let mut hz = 13.75 * SEMITONES[above % 12];
    for _ in 0..above / 12 {
        hz *= 2.0;
    }
    hz
}

/// The sine of `turns`, from 0 to 1, to about 4 in a million.
fn sine(turns: f64) -> f64 {
    let turns = turns - 0.5;
    let folded = if turns > 0.25 {
        0.5 - turns
    } else if turns < -0.25 {
        -0.5 - turns
    } else {
        turns
    };
    let x = folded * TAU;
    let square = x * x;
    -x * (1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0))))
}

/// The sine of the `harmonic`th multiple of `phase`.
fn harmonic(phase: f64, harmonic: u8) -> f64 {
    let multiple = phase * f64::from(harmonic);
    sine(multiple - multiple.floor())
}

/// A string: its overtones die sooner than its ground tone.
fn pluck(phase: f64, ring: f64) -> f64 {
    let (second, fourth) = (ring * ring, ring * ring * ring * ring);
    harmonic(phase, 1)
        + 0.5 * ring * harmonic(phase, 2)
        + 0.3 * second * harmonic(phase, 3)
        + 0.15 * fourth * harmonic(phase, 5)
}

fn pad(phase: f64) -> f64 {
    0.6 * harmonic(phase, 1) + 0.25 * harmonic(phase, 2) + 0.1 * harmonic(phase, 3)
}

/// Rises from and falls to silence, so that no note clicks.
fn edges(index: usize, length: usize, voice: Voice) -> f64 {
    let (rise_ms, fall_ms) = match voice {
        Voice::Pluck => (4, 60),
        Voice::Pad => (700, 900),
    };
    let rise = fraction(index, sample_index(rise_ms)).min(1.0);
    let fall = fraction(length - index, sample_index(fall_ms)).min(1.0);
    rise * fall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_is_one() {
        for turn in 0..1000_u32 {
            let turns = f64::from(turn) / 1000.0;
            assert!((sine(turns) - (turns * TAU).sin()).abs() < 1e-5, "at {turns} turns");
        }
    }

    #[test]
    fn pitches_are_midi_pitches() {
        assert!((pitch_hz(69) - 440.0).abs() < 1e-9);
        assert!((pitch_hz(60) - 261.625_565_3).abs() < 1e-6);
    }

    #[test]
    fn a_note_is_heard_where_it_was_put_and_ends_silent() {
        let mut score = Score::new(3000);
        let note = Note { start_ms: 250, length_ms: 500, pitch: 69, pan: 0.0, level: 1.0, voice: Voice::Pluck };
        score.play(&note);
        // One that would go on past the end is cut, not a panic.
        score.play(&Note { start_ms: 2900, length_ms: 5000, level: 0.1, ..note });
        score.play(&Note { start_ms: 5000, length_ms: 10, ..note });
        let samples = score.samples();
        assert_eq!(samples.len(), 2 * 3 * 44_100);
        assert!(samples[..2 * 11_025].iter().all(|sample| *sample == 0));
        assert!(samples.iter().skip(1).step_by(2).all(|right| *right == 0), "panned to the left");
        assert_eq!(samples.iter().map(|sample| sample.abs()).max(), Some(22_936));
        assert!(samples[samples.len() - 200..].iter().all(|sample| sample.abs() < 20));
    }
}
