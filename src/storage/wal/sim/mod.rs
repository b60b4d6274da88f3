//! A twin of the file layer in memory that loses power: for tests and fuzzing of the real log code.
//!
//! Like a disk it may, at the cut, keep, drop, tear or reorder anything that was not synced: writes
//! sector by sector or at any byte, lengths, and names of files. What was synced stays. Everything
//! follows from the seed. One thing is assumed, of real disks as well: a sector that is written again
//! holds the old or the new bytes, never others.

mod inode;

pub use inode::{Cut, Dice};

use super::fs::{Rest, WalFile, WalFs};
use inode::Inode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A fault that is not a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next write fails.
    Write,
    /// The next sync of a file fails. As in Linux, what was to be synced is then taken for clean: it can
    /// still be read, and no later sync writes it.
    Sync,
    /// The disk is full for new files until the fault is taken back.
    NoSpace,
}

#[derive(Debug)]
struct Disk {
    dice: Dice,
    inodes: Vec<Inode>,
    /// Names as a running system sees them.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that are not synced: the name, and its file unless it was removed.
    pending_names: Vec<(String, Option<usize>)>,
    /// Operations until the power goes.
    countdown: Option<u64>,
    dead: bool,
    ops: u64,
    /// Raised at each restart: handles from before are dead.
    life: u64,
    fault: Option<Fault>,
}

/// A folder on a disk that can lose power. Clones are the same folder.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

impl SimFs {
    /// An empty folder; everything that happens follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let disk = Disk {
            dice: Dice(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            countdown: None,
            dead: false,
            ops: 0,
            life: 0,
            fault: None,
        };
        Self { disk: Arc::new(Mutex::new(disk)), life: 0 }
    }

    /// A separate disk with the same durable content, which can be damaged without harm to this one.
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let disk = self.disk.lock();
        let mut new = copy.disk.lock();
        new.inodes.clone_from(&disk.inodes);
        new.names.clone_from(&disk.names);
        new.durable_names.clone_from(&disk.durable_names);
        new.pending_names.clone_from(&disk.pending_names);
        drop(new);
        copy
    }

    /// The power goes during the operation after the next `ops` ones that change something.
    pub fn cut_after(&self, ops: u64) {
        self.disk.lock().countdown = Some(ops);
    }

    /// True once the power is gone.
    pub fn is_cut(&self) -> bool {
        self.disk.lock().dead
    }

    /// Operations so far that change something.
    pub fn ops(&self) -> u64 {
        self.disk.lock().ops
    }

    /// Sets or clears a fault.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.disk.lock().fault = fault;
    }

    /// Cuts the power if that has not happened, and starts again: answers how the power went and the
    /// folder as it is found. Handles from before fail.
    pub fn reboot(&self) -> (Cut, SimFs) {
        let mut disk = self.disk.lock();
        let cut = Cut::ALL[disk.dice.below(Cut::ALL.len() as u64) as usize];
        let disk = &mut *disk;
        for (name, file) in std::mem::take(&mut disk.pending_names) {
            if cut == Cut::DropAll || (cut != Cut::KeepAll && disk.dice.below(2) == 0) {
                continue;
            }
            match file {
                Some(inode) => disk.durable_names.insert(name, inode),
                None => disk.durable_names.remove(&name),
            };
        }
        disk.names.clone_from(&disk.durable_names);
        for inode in &mut disk.inodes {
            inode.cut(cut, &mut disk.dice);
        }
        let kept: Vec<usize> = disk.names.values().copied().collect();
        for (at, inode) in disk.inodes.iter_mut().enumerate() {
            if !kept.contains(&at) {
                *inode = Inode::default();
            }
        }
        disk.life += 1;
        (disk.countdown, disk.dead, disk.fault) = (None, false, None);
        (cut, SimFs { disk: self.disk.clone(), life: disk.life })
    }

    /// Kills the process without cutting the power: everything written is seen, synced or not.
    pub fn restart(&self) -> SimFs {
        let mut disk = self.disk.lock();
        disk.life += 1;
        (disk.countdown, disk.dead, disk.fault) = (None, false, None);
        SimFs { disk: self.disk.clone(), life: disk.life }
    }

    /// What a file holds.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        Some(disk.inodes[*disk.names.get(name)?].cached.clone())
    }

    /// Flips one bit at rest.
    pub fn flip(&self, name: &str, offset: usize, bit: u32) {
        let mut disk = self.disk.lock();
        let Some(inode) = disk.names.get(name).copied() else { return };
        disk.inodes[inode].flip(offset, bit);
    }

    fn alive<R>(&self, act: impl FnOnce(&mut Disk) -> io::Result<R>) -> io::Result<R> {
        let mut disk = self.disk.lock();
        if disk.dead || disk.life != self.life {
            return Err(io::Error::other("the power is gone"));
        }
        act(&mut disk)
    }

    /// An operation that changes something, which `fault` can hit, on `inode` if it is a sync. `issued` tells what may still reach the disk when the power
    /// goes during it; `act` is the whole of it.
    fn change<R>(
        &self,
        fault: Option<Fault>,
        inode: Option<usize>,
        issued: impl FnOnce(&mut Disk),
        act: impl FnOnce(&mut Disk) -> io::Result<R>,
    ) -> io::Result<R> {
        self.alive(|disk| {
            disk.ops += 1;
            match disk.countdown {
                Some(0) => {
                    issued(disk);
                    disk.dead = true;
                    return Err(io::Error::other("the power goes"));
                }
                Some(ops) => disk.countdown = Some(ops - 1),
                None => {}
            }
            if fault.is_some() && disk.fault == fault {
                if fault == Some(Fault::NoSpace) {
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                disk.fault = None;
                if let (Some(Fault::Sync), Some(inode)) = (fault, inode) {
                    disk.inodes[inode].sync_failed();
                }
                return Err(io::Error::other("injected fault"));
            }
            act(disk)
        })
    }
}

impl Disk {
    fn name(&mut self, name: &str, file: Option<usize>) {
        match file {
            Some(inode) => self.names.insert(name.to_owned(), inode),
            None => self.names.remove(name),
        };
        self.pending_names.push((name.to_owned(), file));
    }

    /// A new file whose zeros are not synced.
    fn add(&mut self, name: &str, bytes: u64) -> usize {
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.inodes[inode].resize(bytes as usize);
        self.name(name, Some(inode));
        inode
    }
}

impl WalFs for SimFs {
    fn list(&self) -> io::Result<Vec<String>> {
        self.alive(|disk| Ok(disk.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str, bytes: u64, _rest: &Rest<'_>) -> io::Result<Arc<dyn WalFile>> {
        let inode = self.change(
            Some(Fault::NoSpace),
            None,
            |disk| {
                let part = disk.dice.below(bytes + 1);
                disk.add(name, part);
            },
            |disk| {
                let inode = disk.add(name, bytes);
                disk.inodes[inode].sync();
                Ok(inode)
            },
        )?;
        Ok(Arc::new(SimFile { fs: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let inode = self.alive(|disk| disk.names.get(name).copied().ok_or_else(missing))?;
        Ok(Arc::new(SimFile { fs: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.change(
            None,
            None,
            |disk| disk.name(name, None),
            |disk| {
                disk.names.get(name).ok_or_else(missing)?;
                disk.name(name, None);
                Ok(())
            },
        )
    }

    /// Less than real file systems promise: at a cut the new name may be there beside the old one, or neither.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let rename = |disk: &mut Disk| {
            let inode = disk.names.get(from).copied();
            let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            disk.name(from, None);
            disk.name(to, Some(inode));
            Ok(())
        };
        self.change(None, None, |disk| drop(rename(disk)), rename)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(
            None,
            None,
            |_| {},
            |disk| {
                disk.durable_names.clone_from(&disk.names);
                disk.pending_names.clear();
                Ok(())
            },
        )
    }

    fn random(&self) -> u64 {
        self.disk.lock().dice.roll()
    }
}

struct SimFile {
    fs: SimFs,
    inode: usize,
}

impl WalFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.fs.alive(|disk| Ok(disk.inodes[self.inode].cached.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fs.alive(|disk| {
            let cached = &disk.inodes[self.inode].cached;
            let there = cached.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(there.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let write = |disk: &mut Disk| disk.inodes[self.inode].write(offset as usize, data);
        self.fs.change(Some(Fault::Write), None, write, |disk| {
            write(disk);
            Ok(())
        })
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        let grow = |disk: &mut Disk| disk.inodes[self.inode].resize(bytes as usize);
        self.fs.change(Some(Fault::NoSpace), None, grow, |disk| {
            grow(disk);
            disk.inodes[self.inode].sync();
            Ok(())
        })
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        let shorten = |disk: &mut Disk| disk.inodes[self.inode].resize(bytes as usize);
        self.fs.change(None, None, shorten, |disk| {
            shorten(disk);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.change(
            Some(Fault::Sync),
            Some(self.inode),
            |_| {},
            |disk| {
                disk.inodes[self.inode].sync();
                Ok(())
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_and_others_are_torn_in_every_way() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let fs = SimFs::new(seed);
            let file = fs.create("a", 4096, &|_, _| Ok(())).unwrap();
            fs.sync_dir().unwrap();
            file.write_at(100, &[1; 100]).unwrap();
            file.sync().unwrap();
            file.write_at(200, &[2; 2000]).unwrap();
            let (cut, fs) = fs.reboot();
            assert!(file.sync().is_err(), "a handle from before the cut");
            let bytes = fs.content("a").unwrap();
            assert_eq!((&bytes[100..200], bytes.len()), (&[1; 100][..], 4096));
            let kept = bytes[200..2200].iter().filter(|byte| **byte == 2).count();
            match cut {
                Cut::DropAll => assert_eq!(kept, 0),
                Cut::KeepAll => assert_eq!(kept, 2000),
                Cut::Writes => assert!(kept == 0 || kept == 2000),
                Cut::Bytes => assert!(bytes[200 + kept..2200].iter().all(|byte| *byte == 0)),
                Cut::Sectors | Cut::Garbage => {}
            }
            seen.insert((format!("{cut:?}"), kept > 0, kept < 2000));
        }
        assert!(seen.len() >= 10, "{seen:?}");
    }

    #[test]
    fn names_are_lost_and_come_back_unless_the_folder_is_synced() {
        let (mut lost, mut back) = (0, 0);
        for seed in 0..100 {
            let fs = SimFs::new(seed);
            fs.create("synced", 1, &|_, _| Ok(())).unwrap();
            fs.create("removed", 1, &|_, _| Ok(())).unwrap();
            fs.sync_dir().unwrap();
            fs.create("new", 1, &|_, _| Ok(())).unwrap();
            fs.remove("removed").unwrap();
            let names = fs.reboot().1.list().unwrap();
            assert!(names.contains(&"synced".to_owned()));
            lost += !names.contains(&"new".to_owned()) as u32;
            back += names.contains(&"removed".to_owned()) as u32;
        }
        assert!((10..90).contains(&lost) && (10..90).contains(&back), "{lost} {back}");
    }

    #[test]
    fn the_power_goes_when_told_and_a_kill_keeps_what_was_written() {
        let fs = SimFs::new(1);
        let file = fs.create("a", 10, &|_, _| Ok(())).unwrap();
        fs.sync_dir().unwrap();
        file.write_at(0, b"x").unwrap();
        assert_eq!(fs.restart().content("a").unwrap()[0], b'x');
        let fs = fs.restart();
        let file = fs.open("a").unwrap();
        fs.cut_after(1);
        file.write_at(1, b"y").unwrap();
        assert!(file.write_at(2, b"z").is_err());
        assert!(fs.is_cut());
        assert!(file.read_at(0, &mut [0]).is_err());
    }
}
