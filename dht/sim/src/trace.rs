//! What happened: a hash of all of it, and the last of it in a form for people.

use std::fmt::{self, Write as _};

use crate::clock::{MILLI, Micros, SECOND};

/// How many lines are kept for people.
const LINES_MAX: usize = 240;

macro_rules! kinds {
    ($($kind:ident = $text:literal,)*) => {
        /// What a line is about.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            const fn text(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }
        }
    };
}

kinds! {
    Start = "starts",
    Stop = "stops",
    Wake = "wakes",
    Message = "message",
    Lost = "message lost",
    Unreachable = "unreachable",
    Ask = "asked",
    Go = "go",
    Refused = "refused",
    Finish = "finished",
    Reply = "reply",
    Write = "durable",
    Read = "read",
    Erase = "erased",
    Rotten = "rotten",
    Pull = "pulls",
    Pulled = "pulled",
    List = "lists",
    Save = "saved epoch",
    Persist = "persisted",
    Append = "takedowns durable",
    Halt = "halts",
    Put = "put begins",
    Get = "get begins",
    Acknowledged = "put acknowledged",
    PutFailed = "put failed",
    Read200 = "get done",
    Read404 = "get not found",
    Read410 = "get gone",
    ReadFailed = "get failed",
    Refreshed = "gateway's epoch",
    Takedown = "takedown asked",
    TakenDown = "takedown answered",
    Command = "command",
    Answer = "command answered",
    Fault = "FAULT begins",
    Healed = "FAULT ends",
    Phase = "PHASE",
}

/// One thing that happened. `word`: a track's number, an epoch, or what the kind makes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    at: Micros,
    kind: Kind,
    who: u32,
    other: u32,
    word: u64,
    note: &'static str,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, who, other, word, note } = *self;
        let (seconds, millis) = (at / SECOND, at % SECOND / MILLI);
        let other = if other == NONE { String::new() } else { format!(" {}", name(other)) };
        write!(f, "{seconds:>6}.{millis:03} s {:>5}{other:<8} {} {word} {note}", name(who), kind.text())
    }
}

impl Kind {
    /// Whether a line of this kind is about this track, or about the whole.
    fn follows(self, word: u64, track: u32) -> bool {
        use Kind::{Command, Fault, Halt, Healed, Phase, Start, Stop};
        match self {
            Fault | Healed | Phase | Start | Stop | Halt | Command => true,
            Kind::Message | Kind::Lost | Kind::Wake | Kind::Unreachable | Kind::Save | Kind::Persist => false,
            Kind::Append | Kind::Answer | Kind::Refreshed | Kind::List => false,
            _ => word == u64::from(track),
        }
    }
}

/// Nobody.
pub(crate) const NONE: u32 = u32::MAX;
/// Added to the numbers of gateways.
pub(crate) const GATEWAY: u32 = 1 << 24;

/// A hash of 128 bits over all lines, and the last lines.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: [u64; 2],
    lines: Vec<Line>,
    next: usize,
    pub(crate) count: u64,
    /// A track all of whose lines go to standard error.
    pub(crate) follow: Option<u32>,
}

const STEP: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

impl Trace {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { hash: [seed ^ STEP[0], seed ^ STEP[1]], lines: Vec::new(), next: 0, count: 0, follow: None }
    }

    pub(crate) fn note(&mut self, at: Micros, kind: Kind, who: u32, other: u32, word: u64) {
        self.say(at, kind, (who, other), word, "");
    }

    /// A message. Those that keep voters and failure detectors going are no lines for people.
    pub(crate) fn message(&mut self, at: Micros, kind: Kind, link: (u32, u32), tag: (u64, &'static str), epoch: u64) {
        self.mix(at, kind, link, tag.0 << 48 | epoch);
        if tag.0 > 2 {
            self.keep(Line { at, kind, who: link.0, other: link.1, word: epoch, note: tag.1 });
        }
    }

    pub(crate) fn say(&mut self, at: Micros, kind: Kind, (who, other): (u32, u32), word: u64, note: &'static str) {
        self.mix(at, kind, (who, other), word);
        if self.follow.is_some_and(|track| kind.follows(word, track)) {
            eprintln!("{}", Line { at, kind, who, other, word, note });
        }
        // Wakes are a third of all lines and tell people nothing.
        if kind != Kind::Wake {
            self.keep(Line { at, kind, who, other, word, note });
        }
    }

    fn mix(&mut self, at: Micros, kind: Kind, (who, other): (u32, u32), word: u64) {
        self.count += 1;
        for part in [at ^ (kind as u64) << 56, u64::from(who) << 32 | u64::from(other), word] {
            self.hash[0] = (self.hash[0] ^ part).wrapping_mul(STEP[0]).rotate_left(29);
            self.hash[1] = (self.hash[1].rotate_left(23) ^ part).wrapping_mul(STEP[1]);
        }
    }

    fn keep(&mut self, line: Line) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.lines[self.next] = line;
        }
        self.next = (self.next + 1) % LINES_MAX;
    }

    pub(crate) const fn hash(&self) -> u128 {
        (self.hash[0] as u128) << 64 | self.hash[1] as u128
    }

    /// The last lines, the oldest first.
    pub(crate) fn text(&self) -> String {
        let (newer, older) = self.lines.split_at(self.next.min(self.lines.len()));
        let older = if self.lines.len() < LINES_MAX { &[][..] } else { older };
        let newer = if self.lines.len() < LINES_MAX { &self.lines[..] } else { newer };
        let mut text = String::new();
        for line in older.iter().chain(newer) {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// A host, as people read it.
pub(crate) fn name(host: u32) -> String {
    match host {
        NONE => "-".to_owned(),
        GATEWAY.. => format!("gw{}", host - GATEWAY),
        _ => format!("n{host}"),
    }
}
