//! The common flags of the client programs.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::json;
use tinysio::client::{Builder, Client, TransportKind};

use super::common::{colour::When, exit::Failure};

/// The default address of the chat.
pub(crate) const DEFAULT_URL: &str = "http://localhost:5000";

/// Flags for the connection and the output.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Transport to use
    #[arg(long, global = true, value_enum, default_value_t)]
    transport: Transport,

    /// Connect with auth {"token": TOKEN}. Other users of this machine can read it in the list of processes: prefer
    /// the file
    #[arg(long, global = true, value_name = "TOKEN", env = "TINYSIO_AUTH_TOKEN", hide_env_values = true)]
    auth_token: Option<String>,

    /// The same, with the token in a file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TINYSIO_AUTH_TOKEN_FILE",
        conflicts_with = "auth_token"
    )]
    auth_token_file: Option<PathBuf>,

    /// Trust also the certificate authorities in this file (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long a connection or an answer may take
    #[arg(long, global = true, value_name = "TIME", default_value = "10s",
          value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,

    /// When to print in colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, help_heading = "Options")]
    pub(crate) color: When,
}

/// The `--transport` values.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Transport {
    /// Polling first, then an upgrade to WebSocket
    #[default]
    Both,
    /// HTTP long-polling only
    Polling,
    /// WebSocket only
    Websocket,
}

impl Connection {
    /// A client of the server at `url`, configured by these flags.
    pub(crate) fn builder(&self, url: &str) -> Result<Builder, Failure> {
        let transports: &[_] = match self.transport {
            Transport::Both => &[TransportKind::Polling, TransportKind::Websocket],
            Transport::Polling => &[TransportKind::Polling],
            Transport::Websocket => &[TransportKind::Websocket],
        };
        let mut builder = Client::builder(url).transports(transports).timeout(self.timeout);
        if let Some(token) = self.token()? {
            builder = builder.auth(json!({ "token": token }));
        }
        if let Some(path) = &self.ca {
            builder = builder.ca_pem(&read(path)?);
        }
        Ok(builder)
    }

    /// Removes the line end that editors append.
    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.auth_token_file else { return Ok(self.auth_token.clone()) };
        let token = String::from_utf8(read(path)?)
            .map_err(|_| Failure::Usage(format!("the token in {} is not text", path.display())))?;
        Ok(Some(token.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// Reads a file given on the command line.
pub(crate) fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// Accepts a URL without a scheme as HTTP.
pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    if text.contains("://") || text.starts_with("unix:") {
        return Ok(text.to_owned());
    }
    let host = text.split('/').next().unwrap_or_default();
    if host.starts_with("localhost") || host.contains(['.', ':']) {
        return Ok(format!("http://{text}"));
    }
    Err("this is neither a command nor a URL like http://localhost:5000".to_owned())
}

/// A speed for demonstrations: a number greater than 0.
pub(crate) fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 && speed.is_finite() => Ok(speed),
        _ => Err("a number greater than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_people_write_them() {
        let parsed = |text| parse_url(text).ok();
        assert_eq!(parsed("http://box:5000").as_deref(), Some("http://box:5000"));
        assert_eq!(parsed("localhost:5000").as_deref(), Some("http://localhost:5000"));
        assert_eq!(parsed("10.0.0.1:5000/chat").as_deref(), Some("http://10.0.0.1:5000/chat"));
        assert_eq!(parsed("unix:///run/x.sock").as_deref(), Some("unix:///run/x.sock"));
        assert_eq!(parsed("emmit"), None);
    }
}
