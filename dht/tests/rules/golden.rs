//! Bytes that do not change by accident.

use std::path::Path;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `now` is what `file` says, which is named from this folder. With `DEADWAX_BLESS=1` it is written
/// anew.
pub(crate) fn assert_golden(now: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules").join(file);
    if std::env::var_os("DEADWAX_BLESS").is_some() {
        std::fs::write(&path, now).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).expect("read the golden file");
    for (now, golden) in now.lines().zip(golden.lines()) {
        assert_eq!(now, golden);
    }
    assert_eq!(now, golden);
}
