//! What lies on a simulated medium: files, and every state of them that a power cut may leave.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

pub type Sector = Arc<[u8; SECTOR as usize]>;

/// The content of a file, by sector; sectors that are not there are holes.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub sectors: BTreeMap<u64, Sector>,
    pub len: u64,
}

impl Image {
    /// Whether the two read the same from byte `offset` on.
    pub fn same_from(&self, other: &Image, offset: u64) -> bool {
        let after = |image: &Image| {
            let sectors = image.sectors.range(offset / SECTOR..);
            let data = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
            data.map(|(n, s)| (*n, s.clone())).collect::<Vec<_>>()
        };
        self.len == other.len && after(self) == after(other)
    }

    pub fn put(&mut self, number: u64, sector: Option<Sector>) {
        match sector {
            Some(sector) => self.sectors.insert(number, sector),
            None => self.sectors.remove(&number),
        };
    }
}

/// Something that happened to the files of a machine, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// Sectors of a file got new content (`None`: punched), and the file is to be so long.
    Change { file: usize, sectors: Vec<(u64, Option<Sector>)>, len: u64 },
    /// All of a file before is durable.
    Sync { file: usize },
    /// Some of what waited to be written was given up: for each of these sectors the medium
    /// has the given one of its contents, and for the length of the file, if any.
    GivenUp { file: usize, picks: Vec<(u64, usize)>, len: Option<usize> },
    /// A step of the caller's.
    Note(usize),
}

/// A file: what is durable of it, and what may or may not have reached the medium beyond it.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub durable: Image,
    /// By sector: every content that it had since it was last synced.
    pub sectors: BTreeMap<u64, Vec<Option<Sector>>>,
    pub lens: Vec<u64>,
}

impl Pending {
    pub fn new(durable: Image) -> Pending {
        Pending { durable, ..Pending::default() }
    }

    /// How long the file will be when all that waits is written.
    pub fn len(&self) -> u64 {
        *self.lens.last().unwrap_or(&self.durable.len)
    }

    pub fn change(&mut self, sectors: &[(u64, Option<Sector>)], len: u64) {
        for (number, sector) in sectors {
            self.sectors.entry(*number).or_default().push(sector.clone());
        }
        if self.len() != len {
            self.lens.push(len);
        }
    }

    pub fn sync(&mut self) {
        let newest: Vec<usize> = self.choices().iter().map(|choices| choices - 1).collect();
        self.durable = self.cut(&newest);
        self.sectors.clear();
        self.lens.clear();
    }

    pub fn give_up(&mut self, picks: &[(u64, usize)], len: Option<usize>) {
        for (number, pick) in picks {
            let contents = self.sectors.remove(number).expect("it waits to be written");
            if *pick > 0 {
                self.durable.put(*number, contents[pick - 1].clone());
            }
        }
        if let Some(len) = len {
            self.durable.len = self.choice_of_len(len);
            self.lens.clear();
        }
    }

    fn choice_of_len(&self, pick: usize) -> u64 {
        if pick == 0 {
            self.durable.len
        } else {
            self.lens[pick - 1]
        }
    }

    /// How many contents each unsynced sector may have and, last, how many lengths the file.
    pub fn choices(&self) -> Vec<usize> {
        let lens = self.lens.len() + 1;
        self.sectors.values().map(|c| c.len() + 1).chain([lens]).collect()
    }

    /// What a power cut leaves that takes one of the [`choices`](Self::choices) of each, 0
    /// being what was durable.
    pub fn cut(&self, picks: &[usize]) -> Image {
        let mut image = self.durable.clone();
        for ((number, contents), pick) in self.sectors.iter().zip(picks) {
            if *pick > 0 {
                image.put(*number, contents[pick - 1].clone());
            }
        }
        image.len = self.choice_of_len(*picks.last().expect("a file has a length"));
        // A sector beyond the length did not make it, whatever the disk says.
        image.sectors.split_off(&image.len.div_ceil(SECTOR));
        image
    }
}

/// All files of a machine.
#[derive(Debug, Clone)]
pub struct Files(Vec<Pending>);

impl Files {
    pub fn new(files: Vec<Image>) -> Files {
        Files(files.into_iter().map(Pending::new).collect())
    }

    /// Takes one more event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Change { file, sectors, len } => self.0[*file].change(sectors, *len),
            Event::Sync { file } => self.0[*file].sync(),
            Event::GivenUp { file, picks, len } => self.0[*file].give_up(picks, *len),
            Event::Note(_) => {}
        }
    }

    /// See [`Pending::choices`]: those of all files.
    pub fn choices(&self) -> Vec<usize> {
        self.0.iter().flat_map(Pending::choices).collect()
    }

    /// See [`Pending::cut`].
    pub fn cut(&self, picks: &[usize]) -> Vec<Image> {
        let mut rest = picks;
        let cut = |file: &Pending| {
            let (mine, others) = rest.split_at(file.choices().len());
            rest = others;
            file.cut(mine)
        };
        self.0.iter().map(cut).collect()
    }
}
