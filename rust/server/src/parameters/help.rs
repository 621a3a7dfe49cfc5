//! What each parameter says, as a door's `--help` prints it.

/// All of them, for users.
pub const HELP: &std::ffi::CStr = c"\
[image=]<PATH|URL> (required) The cloop, uzip or raw image to serve.
image-url=<FD>     In the place of image: an inherited file with the image's URL,
                   which may hold a password.
image-range=<OFFSET>+<LENGTH>  Where in its file the image lies, when it is a
                   part of it. May be repeated: the parts in their order.
image-name=<NAME>  What messages call such an image.
verity=<DIGEST>    The digest that the image must have, as `fsverity digest`
                   prints it.
verity-tree=<PATH>  Its digest tree (default: the image's name and .verity,
                   where that is a file).
cache-dir=<PATH>   Where images at URLs are kept (default: cowcloop/images below
                   $XDG_CACHE_HOME or ~/.cache).
cache-limit=<SIZE>  What all images kept there may take (default: what leaves a
                   tenth of the file system free).
offline=<BOOL>     Ask no server for an image: only what is kept can be read.
timeout=<N>        Seconds that a read waits for the server of an image
                   (default: 60).
ca-file=<PATH>     Certificates of authorities (PEM) that such a server may have
                   its own from, besides the system's.
cow=<PATH>         A cowfile on it, or :memory:. May be repeated, lowest
                   first; the last one takes the writes. None: read-only.
create=<BOOL>      Create the last cowfile when it is missing (default: true).
read-only=<BOOL>   Open the last cowfile read-only too.
repair=<BOOL>      Repair a cowfile that the original driver left dirty.
size=<SIZE>        Size of the device of a cowfile that is created, when larger
                   than the image.
memory-limit=<SIZE>  What :memory: may take (default: half of the memory).
cache=<SIZE>       Decompressed blocks to keep (default: a sixteenth
                   of the memory, 64M to 512M).
threads=<N>        Threads that inflate ahead (default: one per core).
strict=<BOOL>      Check a whole block before any byte of it is given out.
record-trace=<PATH>  Write down here, at the end, which blocks of the image clients
                   read first.
trace=<PATH|URL>   Prefetch the blocks that this trace names (default: the
                   image's name and .trace, where that is a file).
trace-url=<FD>     In the place of trace: an inherited file with the trace's URL,
                   which may hold a password.
prefetch=<WHAT>    What to prefetch: none, trace (the trace's blocks, the default),
                   or all (those, and then all of the image).
rate=<SIZE>        Limit prefetching to SIZE bytes a second.
preload=<N>        Read the first N blocks of the image into the cache at once.
waiting=<N>        Requests of a client that may wait while the image is suspended
                   (default: 12, which leaves a quarter of nbdkit's threads; all of one
                   that may not write).
sessions=<DIR>     Each export name NAME is a session with the cowfile
                   DIR/NAME.cow, made by its first write.
max-sessions=<N>   Sessions that there may be (default: 1000).
session-quota=<SIZE>  Space that a session's cowfile may take.
kept=<PATH>        Keep here what a server that takes over has to know: a file of
                   the device's own, which need not survive the machine, or
                   with sessions a folder.
restarts=<N>       Times that a supervisor has started the server again.
reset-on-boot=<BOOL>  A session begins anew when its machine has been started
                   again: NAME@BOOT names the machine's boot.
boot-gap=<SECONDS>  So long without a client means that, where the boot is not
                   named (default: 60).
control=<PATH>     Unix socket to create for status and sync requests.
metrics=<ADDRESS>  Answer at this [HOST:]PORT or Unix socket with OpenMetrics text.
events=<FD>        Tell what happens by lines of JSON, on this inherited file
                   descriptor.
log=<BOOL>         Tell errors that are told there to the log as well
                   (default: true).
lifeline=<FD>      Shut down when this inherited file descriptor is at its end
                   before anything was read from it.";
