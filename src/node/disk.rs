//! The data folder of a node: its lock, its disk id, and the formation it joined.
//!
//! One small file, `node`, replaced atomically (write, fsync, rename, fsync of the folder). What shards
//! store is not here.

use crate::types::{Code, DiskId, Error, Result};
use crate::wire::codec;
use crate::wire::peer::FormationRecord;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the file holds, behind a CRC-32C. Stored, so a new field means a new format version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NodeRecord {
    disk: DiskId,
    formation: Option<FormationRecord>,
}

/// An open data folder. Holding it keeps other processes out.
pub struct Disk {
    dir: PathBuf,
    record: NodeRecord,
    _lock: File,
}

impl Disk {
    /// Opens or creates the folder; refuses one that another process uses, and one whose `node` file is
    /// missing or damaged while data lies beside it.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| io(dir, &e))?;
        let lock = lock(dir)?;
        let file = dir.join("node");
        let record = match fs::read(&file) {
            Ok(bytes) => decode(&bytes).map_err(|why| corrupt(&file, &why))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if dir.join("wal").exists() || dir.join("copies").exists() {
                    return Err(corrupt(&file, "it is missing, but there is data beside it"));
                }
                let record = NodeRecord { disk: DiskId(rand::random()), formation: None };
                save(dir, &record).map_err(|e| io(dir, &e))?;
                record
            }
            Err(e) => return Err(io(&file, &e)),
        };
        Ok(Self { dir: dir.to_owned(), record, _lock: lock })
    }

    /// The id of this disk.
    pub fn id(&self) -> DiskId {
        self.record.disk
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The formation this disk belongs to.
    pub fn formation(&self) -> Option<&FormationRecord> {
        self.record.formation.as_ref()
    }

    /// Stores the formation durably. A disk joins once: another formation is refused.
    pub fn join(&mut self, formation: &FormationRecord) -> Result<()> {
        if let Some(joined) = &self.record.formation {
            return match joined.id == formation.id {
                true => Ok(()),
                false => Err(Error::new(
                    Code::AlreadyFormed,
                    format!("the data folder belongs to another cluster, `{}`", joined.cluster),
                )),
            };
        }
        let record = NodeRecord { disk: self.record.disk, formation: Some(formation.clone()) };
        save(&self.dir, &record).map_err(|e| io(&self.dir, &e))?;
        self.record = record;
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| io(&path, &e))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(Code::BadConfig, format!("{} is in use by another process", dir.display()))
    })?;
    Ok(file)
}

fn encode(record: &NodeRecord) -> Vec<u8> {
    let mut bytes = codec::encode(record);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> std::result::Result<NodeRecord, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum does not match".into());
    }
    codec::decode(body).map_err(|e| e.to_string())
}

fn save(dir: &Path, record: &NodeRecord) -> std::io::Result<()> {
    let staged = dir.join("node.new");
    let mut file = File::create(&staged)?;
    file.write_all(&encode(record))?;
    file.sync_all()?;
    fs::rename(&staged, dir.join("node"))?;
    File::open(dir)?.sync_all()
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::BadConfig, format!("{}: {error}", path.display()))
}

fn corrupt(path: &Path, why: &str) -> Error {
    Error::new(Code::Corrupt, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formation(id: u128) -> FormationRecord {
        FormationRecord { id, cluster: "test".into(), shards: 12, members: vec![] }
    }

    #[test]
    fn a_folder_keeps_its_id_and_joins_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(dir.path()).unwrap();
        let id = disk.id();
        disk.join(&formation(1)).unwrap();
        disk.join(&formation(1)).unwrap();
        assert_eq!(disk.join(&formation(2)).unwrap_err().code, Code::AlreadyFormed);
        drop(disk);
        let disk = Disk::open(dir.path()).unwrap();
        assert_eq!((disk.id(), disk.formation()), (id, Some(&formation(1))));
    }

    #[test]
    fn a_folder_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let _disk = Disk::open(dir.path()).unwrap();
        assert_eq!(Disk::open(dir.path()).err().unwrap().code, Code::BadConfig);
    }

    #[test]
    fn a_lost_or_damaged_record_beside_data_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        drop(Disk::open(dir.path()).unwrap());
        let file = dir.path().join("node");
        let mut bytes = fs::read(&file).unwrap();
        bytes[3] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert_eq!(Disk::open(dir.path()).err().unwrap().code, Code::Corrupt);
        fs::remove_file(&file).unwrap();
        fs::create_dir(dir.path().join("wal")).unwrap();
        assert_eq!(Disk::open(dir.path()).err().unwrap().code, Code::Corrupt);
    }

    #[test]
    fn the_record_keeps_its_bytes() {
        let record = NodeRecord { disk: DiskId(5), formation: Some(formation(3)) };
        let hex: String = encode(&record).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(&hex[..hex.len() - 8], "0105010304746573740c00");
        assert_eq!(decode(&encode(&record)), Ok(record));
    }
}
