//! What storages that watch over a disk have in common.

/// What a storage that watches over `self.disk` passes on as it is.
macro_rules! reads_pass {
    () => {
        fn name(&self) -> &str {
            self.disk.name()
        }

        fn len(&self) -> io::Result<u64> {
            self.disk.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.disk.read_at(buf, offset)
        }

        fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
            self.disk.next_data(offset)
        }

        fn next_hole(&self, offset: u64) -> io::Result<u64> {
            self.disk.next_hole(offset)
        }

        fn allocated(&self) -> io::Result<u64> {
            self.disk.allocated()
        }
    };
}
pub(crate) use reads_pass;
