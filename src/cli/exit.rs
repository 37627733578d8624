//! How a command ends.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{ConfigError, WhoamiError};
use crate::observe::causes;
use crate::store::{CredentialsError, OwnerError, PrivateFileError, SavedError, WrappedFileError};
use crate::xfrm::{PreflightError, ReadError};

/// Exit status. Part of the contract: scripts depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; of `enable` and `status`: every row is protected, or protection is deliberately off.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Protection is on, and some row is not protected or the agent is dead; of `plan --exit-code`:
    /// something would change.
    Degraded = 3,
    /// No agent runs, and the command needs one.
    NoAgent = 4,
    /// Not permitted; of `doctor`: nothing could be checked.
    NotPermitted = 5,
    /// Of `enable`: this host is enabled, and every row that is not protected waits for a host which is not there
    /// yet.
    Waiting = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // Fieldless, with values below 7.
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct CommandError {
    /// The status to end with.
    pub exit: Exit,
    /// What happened, to what, and what to do next; empty where it has been said already.
    pub message: String,
}

impl CommandError {
    /// A failure with its status and its words.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// A failure of the system while doing `what`.
    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::new(Exit::NotPermitted, format!("{what}: {error}; run as root"))
            }
            _ => Self::new(Exit::Failed, format!("{what}: {error}")),
        }
    }
}

/// Says what went wrong, if anything, and turns the outcome into the process's exit status.
pub fn finish(outcome: Result<Exit, CommandError>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                // Where standard error is closed there is nobody to tell.
                let _ = writeln!(io::stderr(), "hostseal: {}", failure.message);
            }
            failure.exit.into()
        }
    }
}

/// Not permitted where the system said so, `otherwise` for the rest.
fn by_kind(source: &io::Error, otherwise: Exit) -> Exit {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => otherwise,
    }
}

/// The same for what the system said somewhere behind `error`.
fn by_cause(error: &(dyn Error + 'static), otherwise: Exit) -> Exit {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let said = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
    said.map_or(otherwise, |said| by_kind(said, otherwise))
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable { source, .. } => by_kind(source, Exit::Usage),
            ConfigError::Invalid { .. } => Exit::Usage,
            ConfigError::Cluster(source) => by_cause(source.as_ref(), Exit::Failed),
        };
        Self::new(exit, error)
    }
}

impl From<WhoamiError> for CommandError {
    fn from(error: WhoamiError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<PrivateFileError> for CommandError {
    fn from(error: PrivateFileError) -> Self {
        let exit = match &error {
            PrivateFileError::Unreadable { source, .. } => by_kind(source, Exit::Usage),
            _ => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

impl From<WrappedFileError> for CommandError {
    fn from(error: WrappedFileError) -> Self {
        let exit = match &error {
            WrappedFileError::Unreadable { source, .. } => by_kind(source, Exit::Usage),
            WrappedFileError::Owner(_) | WrappedFileError::Contents { .. } => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

impl From<CredentialsError> for CommandError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::File(error) => error.into(),
            CredentialsError::Wrapped(error) => error.into(),
            error => Self::new(Exit::Usage, error),
        }
    }
}

impl From<SavedError> for CommandError {
    fn from(error: SavedError) -> Self {
        let exit = match &error {
            SavedError::Io { source, .. } => by_kind(source, Exit::Failed),
            SavedError::Broken { .. } => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        let exit = match &error {
            ReadError::Refused(source) => by_kind(source, Exit::Failed),
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<PreflightError> for CommandError {
    fn from(error: PreflightError) -> Self {
        let exit = match &error {
            PreflightError::NotPermitted => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<ConfigError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let error = match error.downcast::<WhoamiError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let error = match error.downcast::<OwnerError>() {
            Ok(error) => return Self::new(Exit::Usage, error),
            Err(error) => error,
        };
        let error = match error.downcast::<CredentialsError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let denied = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        Self::new(if denied { Exit::NotPermitted } else { Exit::Failed }, causes::words(error.as_ref()))
    }
}
