//! The demo's album: four short pieces, made here, so that a first start has something to play.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::synth::{Note, Score, Voice};
use crate::wav::Wav;

const ARTIST: &str = "The Pressing Plant";
const ALBUM: &str = "First Light";

/// A piece of the album.
#[derive(Debug)]
pub struct Song {
    /// Its title, also in its tags.
    pub title: &'static str,
    /// How long a note of the arpeggio is apart from the next, in milliseconds.
    step_ms: u32,
    /// What is played for a bar each: four pitches, low to high.
    chords: &'static [[u8; 4]],
    /// Which pitch of the chord each step plays; one from 4 on is an octave up.
    pattern: &'static [usize],
    /// Where the echo answers, in steps.
    echo_steps: u32,
}

/// The album, in order.
pub const SONGS: [Song; 4] = [
    Song {
        title: "Lead-in",
        step_ms: 220,
        chords: &[[48, 55, 64, 71], [45, 52, 60, 67], [41, 48, 57, 64], [43, 50, 59, 65]],
        pattern: &[0, 1, 2, 3, 4, 3, 2, 1, 2, 3, 4, 5, 6, 3, 2, 1],
        echo_steps: 3,
    },
    Song {
        title: "Matrix Number",
        step_ms: 180,
        chords: &[[50, 57, 65, 72], [46, 53, 62, 69], [43, 50, 58, 65], [45, 52, 61, 67], [50, 57, 65, 69]],
        pattern: &[0, 2, 1, 3, 2, 4, 3, 5, 4, 6, 5, 3, 4, 2, 3, 1],
        echo_steps: 2,
    },
    Song {
        title: "Locked Groove",
        step_ms: 250,
        chords: &[[52, 59, 67, 74], [48, 55, 64, 71], [43, 50, 59, 66], [50, 57, 66, 69]],
        pattern: &[0, 1, 3, 2, 4, 2, 3, 1, 0, 1, 3, 2, 5, 4, 3, 1],
        echo_steps: 3,
    },
    Song {
        title: "Run-out",
        step_ms: 300,
        chords: &[[45, 52, 59, 60], [41, 48, 57, 60], [48, 55, 62, 64]],
        pattern: &[0, 1, 2, 3, 4, 3, 6, 3, 2, 1, 2, 1],
        echo_steps: 4,
    },
];

/// What the last chord rings after its bar, in milliseconds.
const TAIL_MS: u32 = 1_800;

impl Song {
    /// How long it plays, in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> u32 {
        self.bar_ms() * u32::try_from(self.chords.len()).expect("a few chords") + TAIL_MS
    }

    fn bar_ms(&self) -> u32 {
        self.step_ms * u32::try_from(self.pattern.len()).expect("a few steps")
    }

    /// The song as a WAV file with its tags, `number` being its place on the album from 1. The same bytes each time.
    #[must_use]
    pub fn wav(&self, number: usize) -> Vec<u8> {
        let mut score = Score::new(self.length_ms());
        let mut bar_start_ms = 0;
        for chord in self.chords {
            self.bar(&mut score, bar_start_ms, chord);
            bar_start_ms += self.bar_ms();
        }
        score.echo(self.step_ms * self.echo_steps, 0.35);
        let info = [
            (*b"INAM", self.title.to_owned()),
            (*b"IART", ARTIST.to_owned()),
            (*b"IPRD", ALBUM.to_owned()),
            (*b"ITRK", number.to_string()),
            (*b"IGNR", "Ambient".to_owned()),
            (*b"ICRD", "2026".to_owned()),
        ];
        Wav { info: info.to_vec(), samples: score.samples() }.encode()
    }

    fn bar(&self, score: &mut Score, start_ms: u32, chord: &[u8; 4]) {
        let bar_ms = self.bar_ms();
        for (voice, pitch) in chord.iter().enumerate() {
            let pan = [0.5, 0.25, 0.75, 0.5][voice];
            let length_ms = bar_ms + 700;
            score.play(&Note { start_ms, length_ms, pitch: *pitch, pan, level: 0.28, voice: Voice::Pad });
        }
        let mut step_start_ms = start_ms;
        for (step, tone) in self.pattern.iter().enumerate() {
            let octaves = u8::try_from(tone / chord.len()).expect("a step is at most an octave or two up");
            let pitch = chord[tone % chord.len()] + 12 + 12 * octaves;
            let pan = if step % 2 == 0 { 0.3 } else { 0.7 };
            let level = if step % 4 == 0 { 0.8 } else { 0.6 };
            score.play(&Note { start_ms: step_start_ms, length_ms: 1_600, pitch, pan, level, voice: Voice::Pluck });
            step_start_ms += self.step_ms;
        }
    }
}

/// Writes the album to `dir` unless it is there already, and names its files in order.
pub fn write(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let mut paths = Vec::with_capacity(SONGS.len());
    for (index, song) in SONGS.iter().enumerate() {
        let path = dir.join(format!("{} {}.wav", index + 1, song.title));
        if !path.exists() {
            // Renamed when whole, so that a file cut short by a crash is never taken for the song.
            let partial = path.with_extension("part");
            fs::write(&partial, song.wav(index + 1))?;
            fs::rename(&partial, &path)?;
        }
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use deadwax_track::TrackId;

    use super::*;

    #[test]
    fn songs_are_of_a_demos_length_and_the_same_everywhere() {
        let ids: Vec<String> = SONGS
            .iter()
            .enumerate()
            .map(|(index, song)| {
                assert!((12_000..20_000).contains(&song.length_ms()), "{} takes {} ms", song.title, song.length_ms());
                TrackId::of(&song.wav(index + 1)).to_string()
            })
            .collect();
        assert_eq!(ids, GOLDEN, "the album's bytes changed: listen to it, then write the new ids down");
    }

    /// Whoever imported the demo of one version must find its tracks present in the next.
    const GOLDEN: [&str; 4] = [
        "3900f6c13e13f8570af674fd1bc7f9b67874ace82b5ff7c48d52288d815ac878",
        "10174ee1a1550ebabefd4b05a8c25ced88b45005754a2411274a47275e9a2310",
        "371ff60b24703a6bcd20b78af4a6887fc73b7ca0703b8f672798a393e45db909",
        "86abb721176075c805e3565c9ac5b0e30d9663dabdda41c5cd8b082dd6277df7",
    ];
}
