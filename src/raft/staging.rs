//! Files of snapshots on their way, beside a copy's table: the table as it is being sent, and one that is
//! being received. Each has a note that says what it is and how much of it is there, so that a transfer
//! that was cut off goes on where it was, also after a restart.
//!
//! Names and bytes only. When a file is made, used or given up is decided in `outgoing` and `incoming`.

use crate::types::GroupId;
use crate::wire::codec;
use crate::wire::peer::SnapshotHeader;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of the next file of this process; files that were found have lower ones.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Where a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

impl Way {
    const fn prefix(self) -> &'static str {
        match self {
            Way::Out => "out-",
            Way::In => "in-",
        }
    }
}

/// What a file is, on either side. Two that are equal here have the same bytes, or one of them is damaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub group: GroupId,
    /// Raft id of the copy whose table it is.
    pub copy: u64,
    /// Position and membership that it reflects, encoded.
    pub meta: Bytes,
    pub data_bytes: u64,
    pub crc32c: u32,
}

impl Identity {
    /// What a header announces.
    pub fn of(header: &SnapshotHeader) -> Self {
        let SnapshotHeader { group, from, data_bytes, crc32c, .. } = *header;
        Self { group, copy: from, meta: header.meta.clone(), data_bytes, crc32c }
    }
}

/// What is known of a file, durably. Stored, so append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub identity: Identity,
    /// Bytes from the start that are durable, and their checksum.
    pub have_bytes: u64,
    pub have_crc32c: u32,
}

impl Note {
    /// Nothing is there yet.
    pub fn empty(identity: Identity) -> Self {
        Self { identity, have_bytes: 0, have_crc32c: 0 }
    }

    /// Everything is there.
    pub fn whole(identity: Identity) -> Self {
        let (have_bytes, have_crc32c) = (identity.data_bytes, identity.crc32c);
        Self { identity, have_bytes, have_crc32c }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = codec::encode(self);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then(|| codec::decode(body).ok())?
    }
}

/// A file with its note. It stays until it is removed.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
}

/// Beside the store's own files, under a name that the store does not use.
pub fn folder(dir: &Path) -> PathBuf {
    dir.join("transfer")
}

impl StagedFile {
    /// A name that no other file has; the file itself is not made.
    pub fn new(dir: &Path, way: Way) -> io::Result<Self> {
        let folder = folder(dir);
        fs::create_dir_all(&folder)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path: folder.join(format!("{}{number}", way.prefix())) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn note_path(&self) -> PathBuf {
        self.path.with_extension("note")
    }

    /// Replaces the note. What it says must be durable already. A power loss may bring back the note
    /// before, which is as true.
    pub fn write_note(&self, note: &Note) -> io::Result<()> {
        self.replace_note(note, File::sync_all)
    }

    /// As `write_note`, for a file that is soon gone: the death of the process loses nothing, and a power loss may
    /// leave no note at all. Waits for no disk.
    pub fn write_note_lazily(&self, note: &Note) -> io::Result<()> {
        self.replace_note(note, |_| Ok(()))
    }

    fn replace_note(&self, note: &Note, sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
        let fresh = self.path.with_extension("note-new");
        let mut file = File::create(&fresh)?;
        file.write_all(&note.encode())?;
        sync(&file)?;
        fs::rename(fresh, self.note_path())
    }

    /// The note, if there is a whole one and the file is as long as it says.
    fn read_note(&self) -> Option<Note> {
        let note = Note::decode(&fs::read(self.note_path()).ok()?)?;
        let length = fs::metadata(&self.path).ok()?.len();
        (note.have_bytes <= note.identity.data_bytes && note.have_bytes <= length).then_some(note)
    }

    /// Deletes the file and its note.
    pub fn remove(&self) {
        // The note first: without it the file is swept at the next start.
        for path in [self.note_path(), self.path.clone()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a staged file stays");
                }
                _ => {}
            }
        }
    }

    /// From here on it is deleted when dropped.
    pub fn guard(self) -> Staged {
        Staged { file: self }
    }
}

/// A file that is deleted when dropped, unless it was moved away.
#[derive(Debug)]
pub struct Staged {
    file: StagedFile,
}

impl Staged {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Replaces the note, as `StagedFile::write_note`.
    pub fn write_note(&self, note: &Note) -> io::Result<()> {
        self.file.write_note(note)
    }

    /// Replaces the note, as `StagedFile::write_note_lazily`.
    pub fn write_note_lazily(&self, note: &Note) -> io::Result<()> {
        self.file.write_note_lazily(note)
    }

    /// It stays after all.
    pub fn keep(self) -> StagedFile {
        let kept = StagedFile { path: self.file.path.clone() };
        std::mem::forget(self);
        kept
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.file.remove();
    }
}

/// What an earlier process left behind and what may be of use.
#[derive(Debug, Default)]
pub struct Found {
    pub outgoing: Option<(StagedFile, Note)>,
    pub incoming: Option<(StagedFile, Note)>,
}

/// Looks through the folder: one file of each way stays, if its note is of this group; everything else is
/// deleted.
pub fn take_stock(dir: &Path, group: GroupId) -> io::Result<Found> {
    let folder = folder(dir);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        entries => entries?,
    };
    let names = entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
    let newest = |way: Way| {
        let numbers = names.iter().filter_map(|name| number(name.to_str()?, way));
        let found = numbers.filter_map(|number| {
            let file = StagedFile { path: folder.join(format!("{}{number}", way.prefix())) };
            let note = file.read_note().filter(|note| note.identity.group == group)?;
            Some((number, file, note))
        });
        let newest = found.max_by_key(|(number, ..)| *number);
        newest.map(|(number, file, note)| {
            NEXT.fetch_max(number + 1, Ordering::Relaxed);
            (file, note)
        })
    };
    let found = Found { outgoing: newest(Way::Out), incoming: newest(Way::In) };
    let kept: Vec<PathBuf> = [&found.outgoing, &found.incoming]
        .into_iter()
        .flatten()
        .flat_map(|(file, _)| [file.path.clone(), file.note_path()])
        .collect();
    for path in names.iter().map(|name| folder.join(name)).filter(|path| !kept.contains(path)) {
        fs::remove_file(path)?;
    }
    Ok(found)
}

/// The number of a data file of that way; notes and foreign names have none.
fn number(name: &str, way: Way) -> Option<u64> {
    name.strip_prefix(way.prefix())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let meta = Bytes::from_static(b"meta");
        Identity { group: GroupId(7), copy: 300, meta, data_bytes: 6, crc32c: 0x0102_0304 }
    }

    fn file(dir: &Path, way: Way, data: &[u8], note: Option<&Note>) -> StagedFile {
        let file = StagedFile::new(dir, way).unwrap();
        fs::write(file.path(), data).unwrap();
        note.into_iter().for_each(|note| file.write_note(note).unwrap());
        file
    }

    fn names(dir: &Path) -> usize {
        fs::read_dir(folder(dir)).unwrap().count()
    }

    #[test]
    fn notes_keep_their_bytes_and_a_damaged_one_is_none() {
        let note = Note { identity: identity(), have_bytes: 4, have_crc32c: 9 };
        let golden = [
            1, 7, 0xac, 2, 4, b'm', b'e', b't', b'a', 6, 0x84, 0x86, 0x88, 8, 4, 9, 0xc0, 0xb4,
            0x5a, 0x2f,
        ];
        assert_eq!(note.encode()[..16], golden[..16]);
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Note::decode(&broken), None, "bit {bit}");
        }
        assert_eq!(Note::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Note::decode(&[]), None);
    }

    #[test]
    fn one_file_of_each_way_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let half = Note { have_bytes: 3, ..Note::empty(identity()) };
        let older = file(dir.path(), Way::In, b"abc", Some(&half));
        let newer = file(dir.path(), Way::In, b"abcde", Some(&half));
        let out = file(dir.path(), Way::Out, b"abcdef", Some(&Note::whole(identity())));
        file(dir.path(), Way::Out, b"without a note", None);
        file(dir.path(), Way::In, b"ab", Some(&half));
        let foreign = Identity { group: GroupId(8), ..identity() };
        file(dir.path(), Way::In, b"abc", Some(&Note::empty(foreign)));
        fs::write(folder(dir.path()).join("out-9.note-new"), b"torn").unwrap();
        let found = take_stock(dir.path(), GroupId(7)).unwrap();
        let [incoming, outgoing] = [found.incoming, found.outgoing].map(Option::unwrap);
        assert_eq!((incoming.0.path(), incoming.1), (newer.path(), half));
        assert_eq!((outgoing.0.path(), outgoing.1), (out.path(), Note::whole(identity())));
        assert!(!older.path().exists());
        assert_eq!(names(dir.path()), 4);
        // A name that was found is not given again.
        let next = StagedFile::new(dir.path(), Way::In).unwrap();
        assert!(next.path() != newer.path() && !next.path().exists());
        incoming.0.remove();
        drop(outgoing.0.guard());
        assert_eq!(names(dir.path()), 0);
        assert!(take_stock(dir.path(), GroupId(7)).unwrap().incoming.is_none());
    }

    #[test]
    fn a_guard_deletes_unless_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let kept = file(dir.path(), Way::In, b"x", None).guard().keep();
        assert!(kept.path().exists());
        drop(kept.guard());
        assert_eq!(names(dir.path()), 0);
        // Moved away by an installation: nothing is left to delete, and that is no error.
        let moved = file(dir.path(), Way::In, b"x", Some(&Note::empty(identity())));
        fs::rename(moved.path(), dir.path().join("table")).unwrap();
        drop(moved.guard());
        assert_eq!(names(dir.path()), 0);
        assert!(dir.path().join("table").exists());
    }
}
