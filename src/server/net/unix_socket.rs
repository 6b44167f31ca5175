//! The file of a Unix-domain socket: who may be in its way, who may use it, and who removes it.
//!
//! ```text
//!   lock the directory ─► a socket that refuses connections? remove it ─► bind ─► mode ─► listen
//! ```
//! Nobody can connect before the mode is set, because nobody listens before.

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

/// How often, and after which pause, the directory's lock is tried for. It is held for as long as a start takes.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The file, removed on drop unless another one has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode. `None`: it was gone at once.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // If it is not ours to remove any more, it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Listens at `path`. The file gets `mode`, or what the umask leaves. One that a dead server left is replaced.
///
/// # Errors
/// `AddrInUse`: there is a file that is no socket, or a socket that does not refuse connections.
pub(crate) fn listen(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    // So that of two servers that start at the same time the second one does not take the first one's socket for abandoned.
    let _lock = lock_directory(path);
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && net::is_abandoned(path) {
        // If it is not ours to remove, binding says so.
        let _ = fs::remove_file(path);
    }
    let mut file = SocketFile { path: path.to_owned(), identity: None };
    let listener = net::listen_unix(path, || {
        file.identity = identity(path);
        mode.map_or(Ok(()), |mode| fs::set_permissions(path, Permissions::from_mode(mode)))
    })?;
    Ok((listener, file))
}

/// `None`: the directory cannot be locked, or somebody holds the lock for long. Then it goes without.
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
