//! The file of a Unix-domain socket: it is created, gets its mode, replaces an abandoned one, and is removed on drop.
//!
//! ```text
//!   lock the directory ─► a socket that refuses connections? remove it ─► bind ─► mode ─► listen
//! ```
//! No client can connect before the mode is set, because the socket does not listen before.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::sys::{
    net::{self, UnixListener},
    thread,
};

/// How often the lock of the directory is tried, and the pause between. A server holds it while it starts.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The file. It is removed on drop, unless another file has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode. `None`: it was removed at once.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Without the permission to remove it, it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Listens at `path`. The file gets `mode`, or the mode of the umask. The socket of a server that has ended is
/// replaced.
///
/// # Errors
/// `AddrInUse`: there is a file that is no socket, or a socket that does not refuse connections.
pub(crate) fn listen(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    // Without the lock, a server could take the socket of another one that starts at the same time for abandoned.
    let _lock = lock_directory(path);
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && net::is_abandoned(path) {
        // If it cannot be removed, the bind fails.
        let _ = fs::remove_file(path);
    }
    let mut file = SocketFile { path: path.to_owned(), identity: None };
    let listener = net::listen_unix(path, || {
        file.identity = identity(path);
        mode.map_or(Ok(()), |mode| fs::set_permissions(path, Permissions::from_mode(mode)))
    })?;
    Ok((listener, file))
}

/// `None`: the directory cannot be locked, or another process holds the lock for long. Then the start goes on without
/// it.
fn lock_directory(path: &Path) -> Option<File> {
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = File::open(parent).ok()?;
    for _ in 0..LOCK_TRIES {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}
