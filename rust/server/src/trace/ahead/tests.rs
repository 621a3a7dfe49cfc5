use std::io;
use std::sync::Arc;

use cowcloop_engine::device::DeviceOptions;
use parking_lot::Mutex;

use super::*;

const CHUNK: u64 = 1000;
const CHUNKS: u64 = 100;

/// Storage that is far away: the oldest range that was asked for comes whenever its pace is
/// asked for.
#[derive(Debug, Default)]
struct Far {
    request: u64,
    /// None of it ever comes.
    lost: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    here: Vec<u64>,
    asked: Vec<Range<u64>>,
    on_its_way: VecDeque<Range<u64>>,
    most_on_its_way: u64,
}

impl Storage for Far {
    fn name(&self) -> &str {
        "far"
    }
    fn len(&self) -> io::Result<u64> {
        Ok(CHUNKS * CHUNK)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = buf.len().min((CHUNKS * CHUNK - offset) as usize);
        Ok(n)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
    fn next_hole(&self, _offset: u64) -> io::Result<u64> {
        self.len()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }
    fn expect(&self, offset: u64, length: u64) {
        let mut state = self.state.lock();
        let range = offset / CHUNK..(offset + length) / CHUNK;
        state.asked.push(range.clone());
        state.on_its_way.push_back(range);
        let bytes = state.on_its_way.iter().map(|range| (range.end - range.start) * CHUNK);
        state.most_on_its_way = state.most_on_its_way.max(bytes.sum());
    }
    fn is_near(&self, offset: u64, length: u64) -> bool {
        let state = self.state.lock();
        let mut chunks = offset / CHUNK..(offset + length).div_ceil(CHUNK);
        chunks.all(|chunk| state.here.contains(&chunk))
    }
    fn pace(&self) -> Option<FetchPace> {
        let mut state = self.state.lock();
        if let Some(range) = state.on_its_way.pop_front().filter(|_| !self.lost) {
            state.here.extend(range);
        }
        Some(FetchPace { chunk: CHUNK, request: self.request, window: 8 * CHUNK })
    }
}

/// How long something that is on its way is waited for: longer than any test runs.
const PATIENT: Duration = Duration::from_secs(3600);

/// What is asked for to have these chunks ready, and the most bytes on their way.
fn asked_for(far: Far, chunks: &[u64], readers: &Readers) -> (Vec<Range<u64>>, u64) {
    let far = Arc::new(far);
    let device = Device::open_storage(far.clone(), &[], &DeviceOptions::default()).unwrap();
    let stop = AtomicBool::new(false);
    let mut ahead = Ahead::new(&device, &*far, readers, &stop, None);
    ahead.again = PATIENT;
    let part = |chunk: &u64| Part { at: chunk * CHUNK, length: CHUNK, block: None };
    assert_eq!(ahead.run(chunks.iter().map(part)), 0);
    let state = far.state.lock();
    assert!(chunks.iter().all(|chunk| state.here.contains(chunk)));
    (state.asked.clone(), state.most_on_its_way)
}

#[test]
fn parts_are_asked_for_in_their_order_and_no_more_than_the_line_takes() {
    let order: Vec<u64> = (0..CHUNKS).map(|number| number * 37 % CHUNKS).collect();
    let wanted: Vec<_> = order.iter().map(|chunk| *chunk..chunk + 1).collect();
    let far = || Far { request: CHUNK, ..Far::default() };
    let readers = Readers::default();
    let (asked, most) = asked_for(far(), &order, &readers);
    assert_eq!((asked, most), (wanted.clone(), 8 * CHUNK));
    // A client waits.
    readers.watch(true);
    let _reading = readers.begin();
    let (asked, most) = asked_for(far(), &order, &readers);
    assert_eq!((asked, most), (wanted, 4 * CHUNK));
}

#[test]
fn neighbours_are_one_request_and_what_is_here_is_none() {
    let far = Far { request: 4 * CHUNK, ..Far::default() };
    far.state.lock().here = vec![5, 6];
    let chunks = [1, 2, 3, 4, 5, 6, 7, 40, 41, 42, 43, 44, 45, 42, 1];
    let (asked, _) = asked_for(far, &chunks, &Readers::default());
    let found: Vec<u64> = asked.iter().flat_map(Clone::clone).collect();
    assert_eq!(found, [1, 2, 3, 4, 7, 40, 41, 42, 43, 44, 45]);
    assert_eq!(asked[..3], [1..5, 7..8, 40..43]);
}

/// Storage whose bytes never come.
fn never() -> (Arc<Far>, Device) {
    let far = Arc::new(Far { request: CHUNK, lost: true, ..Far::default() });
    let device = Device::open_storage(far.clone(), &[], &DeviceOptions::default()).unwrap();
    (far, device)
}

#[test]
fn what_does_not_come_is_asked_for_again_and_given_up_in_the_end() {
    let ((far, device), readers, stop) = (never(), Readers::default(), AtomicBool::new(false));
    let mut ahead = Ahead::new(&device, &*far, &readers, &stop, None);
    ahead.again = Duration::ZERO;
    let part = |chunk: u64| Part { at: chunk * CHUNK, length: CHUNK, block: None };
    assert_eq!(ahead.run([3, 7].map(part).into_iter()), 2);
    let asked = far.state.lock().asked.clone();
    assert_eq!(asked.iter().filter(|range| range.start == 3).count(), TIMES as usize + 1);
    assert_eq!(asked.len(), 2 * (TIMES as usize + 1));
}

#[test]
fn the_thread_rests_while_nothing_can_happen() {
    let ((far, device), readers, stop) = (never(), Readers::default(), AtomicBool::new(false));
    let mut ahead = Ahead::new(&device, &*far, &readers, &stop, None);
    // Nothing is on its way: until the rate allows it, but the end must not wait for that.
    assert_eq!(ahead.rest(), LOOK);
    ahead.rate.free = Instant::now() + PATIENT;
    assert_eq!(ahead.rest(), LOOK_IDLE);
    // What was asked for just now may be here at any moment; what has failed is not.
    ahead.send(0..CHUNK);
    ahead.send(CHUNK..2 * CHUNK);
    assert_eq!(ahead.rest(), LOOK);
    ahead.flying[0].times = 1;
    assert_eq!(ahead.rest(), LOOK);
    ahead.flying[1].times = 1;
    assert_eq!(ahead.rest(), LOOK_LATE);
}

#[test]
fn the_rate_holds_on_the_average() {
    let begin = Instant::now();
    let mut rate = Rate { a_second: Some(1000), free: begin };
    (0..60).for_each(|_| rate.spend(1000));
    let time = rate.free - begin;
    assert!(time >= Duration::from_secs(60) && !rate.allows());
    let mut none = Rate { a_second: None, free: begin };
    none.spend(u64::MAX);
    assert!(none.allows());
}
