//! Pure layer: what fuzzing found once, and the inputs it kept, still hold: `fuzz/found/TARGET/*` and `fuzz/kept/TARGET.tar.gz`.
//! `scripts/fuzz` makes them, and finds more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../fuzz/src/checks/mod.rs"]
mod checks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn what_fuzzing_found_and_kept_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (target, check) in checks::ALL {
        let kept = unpacked(target, folder.path());
        assert!(!kept.is_empty(), "nothing is kept of {target}");
        let found = files(&fuzz().join("found").join(target));
        for input in kept.iter().chain(&found) {
            let data = std::fs::read(input).unwrap();
            if catch_unwind(AssertUnwindSafe(|| check(&data))).is_err() {
                wrong.push(format!("{target}: {}", String::from_utf8_lossy(&data)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_check_is_a_target() {
    let mut targets: Vec<String> = files(&fuzz().join("targets"))
        .iter()
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut checks: Vec<String> = checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    checks.sort();
    assert_eq!(targets, checks);
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of an archive, unpacked below a folder.
fn unpacked(target: &str, folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join(target);
    std::fs::create_dir(&folder).unwrap();
    let archive = fuzz().join("kept").join(format!("{target}.tar.gz"));
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).status();
    assert!(status.unwrap().success(), "{} cannot be unpacked", archive.display());
    files(&folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}
