//! What an image says about the command to run in it.

use oci_spec::image::Config;
use serde::{Deserialize, Serialize};

/// What an image says about the command to run in it (OCI Image Format Specification, "Image Configuration", `config`).
///
/// No string has a zero byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The command's beginning, which arguments are appended to.
    pub entrypoint: Vec<String>,
    /// The arguments, or the command if there is no entrypoint, unless the user gives some.
    pub cmd: Vec<String>,
    /// The environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory, an absolute path; `/` if the image says nothing.
    pub working_dir: String,
    /// The user as `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`, to be looked up in the image's
    /// `/etc/passwd` and `/etc/group`; empty if the image says nothing, which means root.
    pub user: String,
    /// The signal that asks the command to end, as `SIGNAME` or a number.
    pub stop_signal: Option<String>,
}

impl ImageConfig {
    /// Takes over what the image says. Entries of the environment without `=` are left out.
    ///
    /// # Errors
    /// The name of the field that has a zero byte.
    pub(crate) fn new(config: &Config) -> Result<Self, &'static str> {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let mut env = list(config.env());
        env.retain(|variable| variable.contains('='));
        let config = Self {
            entrypoint: list(config.entrypoint()),
            cmd: list(config.cmd()),
            env,
            working_dir: absolute(config.working_dir().as_deref().unwrap_or_default()),
            user: config.user().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone(),
        };
        match config.field_with_zero() {
            Some(field) => Err(field),
            None => Ok(config),
        }
    }

    fn field_with_zero(&self) -> Option<&'static str> {
        let any = |list: &[String]| list.iter().any(|text| text.contains('\0'));
        [
            ("Entrypoint", any(&self.entrypoint)),
            ("Cmd", any(&self.cmd)),
            ("Env", any(&self.env)),
            ("WorkingDir", self.working_dir.contains('\0')),
            ("User", self.user.contains('\0')),
            ("StopSignal", any(self.stop_signal.as_slice())),
        ]
        .into_iter()
        .find_map(|(field, has_zero)| has_zero.then_some(field))
    }
}

/// The path from the root if it is not one already.
fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<ImageConfig, &'static str> {
        ImageConfig::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn fields_may_be_missing_or_null() {
        let nothing = ImageConfig {
            working_dir: "/".into(),
            ..ImageConfig::default()
        };
        assert_eq!(config("{}").unwrap(), nothing);
        let nulls = r#"{"Env": null, "Cmd": null, "Entrypoint": null, "Labels": null, "Volumes": null,
            "ExposedPorts": null, "OnBuild": null, "User": "", "WorkingDir": "", "ArgsEscaped": true}"#;
        assert_eq!(config(nulls).unwrap(), nothing);
    }

    #[test]
    fn strings_with_zeros_are_refused() {
        assert_eq!(config(r#"{"Env": ["A=\u0000"]}"#), Err("Env"));
        assert_eq!(config(r#"{"User": "\u0000"}"#), Err("User"));
        assert_eq!(config(r#"{"StopSignal": "\u0000"}"#), Err("StopSignal"));
    }
}
