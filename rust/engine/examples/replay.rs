//! Makes the requests of a recording again, one after the other, and says what they cost.
//!
//! `replay IMAGE RECORDING [MICROSECONDS]`: each line of the recording is a request's offset and its
//! length, in bytes; the pause between two requests is spent in a loop.

use std::path::Path;
use std::time::{Duration, Instant};

use cowcloop_engine::device::{Device, DeviceOptions};

/// Requests that take longer have waited for something to be inflated.
const LONG: Duration = Duration::from_micros(15);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [image, recording, pause @ ..] = arguments.as_slice() else {
        return Err("usage: replay IMAGE RECORDING [MICROSECONDS]".into());
    };
    let pause = pause.first().map_or(Ok(20), |text| text.parse())?;
    let recording = std::fs::read_to_string(recording)?;
    let device = Device::open(Path::new(image), &[], &DeviceOptions::default())?;
    device.base().clone().layer().start();

    let mut buffer = Vec::new();
    let (mut waited, mut long) = (Duration::ZERO, 0);
    for line in recording.lines() {
        let (offset, length) = line.split_once(' ').ok_or("a line is OFFSET LENGTH")?;
        let length = length.parse()?;
        buffer.resize(length, 0);
        let begin = Instant::now();
        device.read_at(&mut buffer, offset.parse()?)?;
        let took = begin.elapsed();
        waited += took;
        long += u32::from(took > LONG);
        while begin.elapsed() < took + Duration::from_micros(pause) {
            std::hint::spin_loop();
        }
    }
    println!("waited {waited:?}; {long} requests took more than {LONG:?}");
    println!("{:?}", device.status());
    Ok(())
}
