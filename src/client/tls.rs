//! TLS over a non-blocking socket: rustls with ring, Mozilla's authorities and the user's own.
//!
//! `rustls::StreamOwned` writes everything before it reads, so a peer that does not read would keep the client from
//! reading and from sleeping. Here the two directions never wait for each other.
//!
//! Uses rustls only. It must not know the client.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::Error;

/// A TLS connection and its socket.
#[derive(Debug)]
pub(super) struct Tls<S> {
    tls: ClientConnection,
    socket: S,
}

impl<S: Read + Write> Tls<S> {
    pub(super) fn new(tls: ClientConnection, socket: S) -> Self {
        Self { tls, socket }
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// One step of the handshake; `true` when it is done.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        if self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        } else if self.tls.is_handshaking() {
            self.fetch()?;
        }
        Ok(!self.tls.is_handshaking() && !self.tls.wants_write())
    }

    /// Sends the close alert, as far as the socket takes it, and gives the socket.
    pub(super) fn close(&mut self) -> &mut S {
        self.tls.send_close_notify();
        let _ = self.push();
        &mut self.socket
    }

    /// Reads from the socket and decrypts.
    fn fetch(&mut self) -> io::Result<()> {
        if self.tls.read_tls(&mut self.socket)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.tls.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                // The alert tells the peer the reason. It need not arrive.
                let _ = self.push();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Writes what is encrypted.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl<S: Read + Write> Read for Tls<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.fetch()?,
                result => return result,
            }
        }
    }
}

impl<S: Read + Write> Write for Tls<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            // The writer buffers up to 64 KiB, then nothing until the socket has taken some.
            let taken = self.tls.writer().write(buf)?;
            if taken > 0 || buf.is_empty() {
                return Ok(taken);
            }
            self.push()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// The configuration of all streams of one client.
pub(super) fn config(ca: &[Vec<u8>]) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for pem in ca {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| invalid(&error))?;
            roots.add(certificate).map_err(|error| invalid(&error))?;
        }
        if roots.len() == before {
            return Err(Error::Invalid("ca_pem: no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Invalid(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("ca_pem: {error}"))
}

/// A connection to `host`. The certificate must be for that name or address.
pub(super) fn connection(config: &Arc<ClientConfig>, host: &str) -> Result<ClientConnection, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())
}
