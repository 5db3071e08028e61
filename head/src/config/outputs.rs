//! Where the answers of a run go: flags and their checks.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use clap::ValueEnum;
use ureq::http::Uri;

use crate::Error;

/// Ports that are used where an address names none.
const MQTT_PORT: u16 = 1883;
const MQTTS_PORT: u16 = 8883;
/// The environment variable with the password for the broker.
const PASSWORD: &str = "NARROWS_MQTT_PASSWORD";

/// The flags of `narrows-head run` that say where answers go, as given.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputFlags {
    /// Where the JSON line of each frame goes: `-` for standard output, `none`, or a file that is appended to
    #[arg(long, value_name = "-|none|FILE", default_value = "-", help_heading = "JSON lines")]
    pub lines: PathBuf,

    /// Size at which the file of --lines is renamed to FILE.1 and begun anew, with K, M or G for powers of 1024 [default: 64M]
    #[arg(long, value_name = "BYTES", value_parser = size, help_heading = "JSON lines")]
    pub rotate_size: Option<u64>,

    /// How many renamed files of --lines are kept: FILE.1 is the newest [default: 4]
    #[arg(long, value_name = "N", help_heading = "JSON lines")]
    pub rotate_keep: Option<u32>,

    /// The flags of MQTT.
    #[command(flatten)]
    pub mqtt: MqttFlags,

    /// The flags of the webhook.
    #[command(flatten)]
    pub webhook: WebhookFlags,

    /// The flags of the page.
    #[command(flatten)]
    pub page: PageFlags,
}

/// The flags of MQTT, as given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "MQTT")]
pub struct MqttFlags {
    /// Broker to publish answers to: mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS; without a port 1883, or 8883
    #[arg(long, value_name = "URL")]
    pub mqtt: Option<String>,

    /// User name at the broker; the password is read from --mqtt-password-file or NARROWS_MQTT_PASSWORD
    #[arg(long, value_name = "NAME")]
    pub mqtt_user: Option<String>,

    /// File with the password for the broker; a line feed at its end is left out
    #[arg(long, value_name = "FILE")]
    pub mqtt_password_file: Option<PathBuf>,

    /// CA certificates (PEM) by which the broker's certificate is checked [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub mqtt_ca: Option<PathBuf>,

    /// Certificate (PEM) that this device shows to the broker
    #[arg(long, value_name = "FILE", requires = "mqtt_key")]
    pub mqtt_cert: Option<PathBuf>,

    /// Private key (PEM) of --mqtt-cert, readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "mqtt_cert")]
    pub mqtt_key: Option<PathBuf>,

    /// Topic that every topic of this device begins with [default: narrows/DEVICE]
    #[arg(long, value_name = "PREFIX")]
    pub mqtt_topic: Option<String>,

    /// Least seconds between two pictures of a camera; 0 publishes none [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub mqtt_picture: Option<u32>,

    /// Topic of Home Assistant's discovery, or `none` [default: homeassistant]
    #[arg(long, value_name = "PREFIX|none")]
    pub mqtt_discovery: Option<String>,
}

/// The flags of the webhook, as given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Webhook")]
pub struct WebhookFlags {
    /// Address that each JSON line is sent to by POST: http://… or https://…; @FILE reads it from a file, so that no secret
    /// in it is seen in the list of processes
    #[arg(long, value_name = "URL|@FILE")]
    pub webhook: Option<String>,

    /// Send only the lines of frames with this status
    #[arg(long, value_name = "STATUS", value_enum)]
    pub webhook_only: Option<Only>,

    /// Milliseconds that one request may take [default: 5000]
    #[arg(long, value_name = "MS")]
    pub webhook_timeout: Option<u64>,

    /// File of headers to send, one `Name: value` in each line, for example an Authorization
    #[arg(long, value_name = "FILE")]
    pub webhook_headers: Option<PathBuf>,

    /// CA certificates (PEM) by which the certificate of an https:// address is checked [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,
}

/// The flags of the page, as given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Page")]
pub struct PageFlags {
    /// Serve a page with the live picture, answers and figures at this address, for example 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page: Option<String>,

    /// Let --page listen at an address that other machines reach. There is no password: whoever reaches it sees what the
    /// cameras see
    #[arg(long)]
    pub page_allow_remote: bool,

    /// Further names that browsers may use for the page; addresses, localhost and the host name are known
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub page_name: Vec<String>,
}

/// The frames whose lines a webhook gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Frames with an answer
    Answered,
    /// Frames without an answer, but for those whose place a newer one took
    Unanswered,
}

/// Where the answers of a run go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outputs {
    /// Where JSON lines go.
    pub lines: Lines,
    /// The broker, if answers are published.
    pub mqtt: Option<Mqtt>,
    /// The webhook, if there is one.
    pub webhook: Option<Webhook>,
    /// The page, if one is served.
    pub page: Option<Page>,
}

/// Where JSON lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lines {
    /// To standard output.
    Standard,
    /// Nowhere.
    Nowhere,
    /// To a file, which is renamed when it is full.
    File {
        /// The file.
        path: PathBuf,
        /// Bytes at which it is renamed.
        rotate_size: u64,
        /// How many renamed files are kept.
        keep: u32,
    },
}

/// How answers are published to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mqtt {
    /// Host name or address of the broker, an IPv6 one without brackets.
    pub host: String,
    /// Port of the broker.
    pub port: u16,
    /// Whether TLS is used.
    pub tls: bool,
    /// Name and password at the broker.
    pub user: Option<(String, String)>,
    /// File of CA certificates; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Files of the device's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The topic that every topic begins with; `narrows/` and the device where there is none.
    pub topic: Option<String>,
    /// Least time between two pictures of a camera; `None` publishes no pictures.
    pub picture: Option<Duration>,
    /// Topic of Home Assistant's discovery, if it is used.
    pub discovery: Option<String>,
}

/// How lines are sent to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where they are sent.
    pub url: Uri,
    /// Which frames' lines are sent.
    pub only: Option<Only>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Further headers: names and values.
    pub headers: Vec<(String, String)>,
    /// File of CA certificates; the system's where there is none.
    pub ca: Option<PathBuf>,
}

/// How the page is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Where it is served.
    pub listen: SocketAddr,
    /// The names that browsers may use for it, beside addresses and `localhost`.
    pub names: Vec<String>,
}

impl OutputFlags {
    /// Checks the flags; reads the files that hold a password, an address or headers.
    ///
    /// # Errors
    /// [`Error::Usage`] with the flag and the values that it may have.
    pub(super) fn check(&self) -> Result<Outputs, Error> {
        let lines = match self.lines.to_str() {
            Some("-") => Lines::Standard,
            Some("none") => Lines::Nowhere,
            Some("") => return Err(Error::usage("--lines", "a file has a name; give -, none or FILE")),
            _ => Lines::File {
                path: self.lines.clone(),
                rotate_size: super::in_range(
                    "--rotate-size",
                    self.rotate_size.unwrap_or(64 << 20),
                    4096,
                    1 << 40,
                )?,
                keep: super::in_range("--rotate-keep", self.rotate_keep.unwrap_or(4).into(), 0, 1000)? as u32,
            },
        };
        if !matches!(lines, Lines::File { .. }) {
            let stray = [
                ("--rotate-size", self.rotate_size.is_some()),
                ("--rotate-keep", self.rotate_keep.is_some()),
            ];
            needs("--lines FILE", &stray)?;
        }
        let mqtt = self.mqtt.check()?;
        let webhook = self.webhook.check()?;
        let page = self.page.check()?;
        Ok(Outputs { lines, mqtt, webhook, page })
    }
}

impl MqttFlags {
    fn check(&self) -> Result<Option<Mqtt>, Error> {
        let Some(url) = &self.mqtt else {
            let stray = [
                ("--mqtt-user", self.mqtt_user.is_some()),
                ("--mqtt-password-file", self.mqtt_password_file.is_some()),
                ("--mqtt-ca", self.mqtt_ca.is_some()),
                ("--mqtt-cert", self.mqtt_cert.is_some()),
                ("--mqtt-topic", self.mqtt_topic.is_some()),
                ("--mqtt-picture", self.mqtt_picture.is_some()),
                ("--mqtt-discovery", self.mqtt_discovery.is_some()),
            ];
            return needs("--mqtt", &stray).map(|()| None);
        };
        let flag = "--mqtt";
        let uri = parse(flag, url, "mqtt://HOST:1883 or mqtts://HOST:8883")?;
        let tls = match uri.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => {
                return Err(Error::usage(
                    flag,
                    "the address begins with mqtt:// or, with TLS, with mqtts://",
                ));
            }
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(Error::usage(
                flag,
                "an address of a broker ends with its port; --mqtt-topic names the topic",
            ));
        }
        let tls_only = [("--mqtt-ca", self.mqtt_ca.is_some()), ("--mqtt-cert", self.mqtt_cert.is_some())];
        if let Some((flag, _)) = tls_only.iter().find(|(_, given)| *given && !tls) {
            return Err(Error::usage(flag, "only a broker at mqtts://… has a certificate"));
        }
        let password = match &self.mqtt_password_file {
            Some(file) => Some(secret("--mqtt-password-file", file)?),
            None => std::env::var(PASSWORD).ok(),
        };
        let user = match (&self.mqtt_user, password) {
            (Some(user), password) => Some((user.clone(), password.unwrap_or_default())),
            (None, Some(_)) if self.mqtt_password_file.is_some() => {
                return Err(Error::usage("--mqtt-user", "a password needs the name of a user"));
            }
            (None, _) => None,
        };
        let topic = self.mqtt_topic.as_deref().map(|topic| publishable("--mqtt-topic", topic)).transpose()?;
        let discovery = match self.mqtt_discovery.as_deref() {
            Some("none") => None,
            Some(prefix) => Some(publishable("--mqtt-discovery", prefix)?.to_owned()),
            None => Some("homeassistant".to_owned()),
        };
        let picture = super::in_range("--mqtt-picture", self.mqtt_picture.unwrap_or(10).into(), 0, 86_400)?;
        let host = uri.host().unwrap_or_default();
        Ok(Some(Mqtt {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if tls { MQTTS_PORT } else { MQTT_PORT }),
            tls,
            user,
            ca: self.mqtt_ca.clone(),
            identity: self.mqtt_cert.clone().zip(self.mqtt_key.clone()),
            topic: topic.map(str::to_owned),
            picture: (picture > 0).then(|| Duration::from_secs(picture)),
            discovery,
        }))
    }
}

impl WebhookFlags {
    fn check(&self) -> Result<Option<Webhook>, Error> {
        let Some(given) = &self.webhook else {
            let stray = [
                ("--webhook-only", self.webhook_only.is_some()),
                ("--webhook-timeout", self.webhook_timeout.is_some()),
                ("--webhook-headers", self.webhook_headers.is_some()),
                ("--webhook-ca", self.webhook_ca.is_some()),
            ];
            return needs("--webhook", &stray).map(|()| None);
        };
        let text = match given.strip_prefix('@') {
            Some(file) => secret("--webhook", file.as_ref())?,
            None => given.clone(),
        };
        let url = parse("--webhook", &text, "http://HOST/PATH or https://HOST/PATH")?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Error::usage("--webhook", "the address begins with http:// or https://")),
        };
        if self.webhook_ca.is_some() && !tls {
            return Err(Error::usage("--webhook-ca", "only an address at https://… has a certificate"));
        }
        let headers = match &self.webhook_headers {
            Some(file) => headers(&secret("--webhook-headers", file)?)?,
            None => Vec::new(),
        };
        let timeout = super::in_range("--webhook-timeout", self.webhook_timeout.unwrap_or(5000), 1, 600_000)?;
        let timeout = Duration::from_millis(timeout);
        Ok(Some(Webhook { url, only: self.webhook_only, timeout, headers, ca: self.webhook_ca.clone() }))
    }
}

impl PageFlags {
    fn check(&self) -> Result<Option<Page>, Error> {
        let Some(given) = &self.page else {
            let stray = [
                ("--page-allow-remote", self.page_allow_remote),
                ("--page-name", !self.page_name.is_empty()),
            ];
            return needs("--page", &stray).map(|()| None);
        };
        let listen: SocketAddr = given.replace("localhost:", "127.0.0.1:").parse().map_err(|_| {
            let reason = format!("{given:?} is no address with a port; give 127.0.0.1:8080 or [::1]:8080");
            Error::usage("--page", reason)
        })?;
        if !listen.ip().to_canonical().is_loopback() && !self.page_allow_remote {
            let reason = format!(
                "{listen} can be reached from other machines, and the page shows what the cameras see to whoever reaches \
                 it; listen at 127.0.0.1:{}, or add --page-allow-remote",
                listen.port()
            );
            return Err(Error::usage("--page", reason));
        }
        let host = host_name().to_ascii_lowercase();
        let mut names = vec![format!("{host}.local"), host];
        names.extend(self.page_name.iter().map(|name| name.trim().to_ascii_lowercase()));
        Ok(Some(Page { listen, names }))
    }
}

/// Refuses the flags of a sink that is not asked for.
fn needs(sink: &str, stray: &[(&'static str, bool)]) -> Result<(), Error> {
    match stray.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::usage(flag, format!("it needs {sink}"))),
        None => Ok(()),
    }
}

/// Parses an address; its parts must not hold a password, which every user of the device would see.
fn parse(flag: &'static str, text: &str, form: &str) -> Result<Uri, Error> {
    let uri: Uri = text.parse().map_err(|error| Error::usage(flag, format!("{error}; give {form}")))?;
    let Some(authority) = uri.authority() else {
        return Err(Error::usage(flag, format!("the address names no host; give {form}")));
    };
    if authority.as_str().contains('@') {
        let way = match flag {
            "--mqtt" => "give --mqtt-user and --mqtt-password-file",
            _ => "give an Authorization in --webhook-headers",
        };
        return Err(Error::usage(flag, format!("an address here holds no user and password; {way}")));
    }
    let has_port = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    if authority.host().is_empty() || has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(Error::usage(flag, format!("the address has no usable host and port; give {form}")));
    }
    Ok(uri)
}

/// Reads a file with something secret in it, without the line feed at its end.
fn secret(flag: &'static str, file: &std::path::Path) -> Result<String, Error> {
    read_secret(flag, file).map_err(|reason| Error::usage(flag, reason))
}

/// The same with the reason alone.
pub(crate) fn read_secret(flag: &str, file: &std::path::Path) -> Result<String, String> {
    let named = crate::name::Escaped(file);
    let text =
        narrows_service::read_text(file).map_err(|error| format!("{named} cannot be read: {error}"))?;
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o007 != 0 {
        tracing::warn!("{flag}: every user of this device can read {named}; run: chmod 600 {named}");
    }
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(format!("{named} is empty")),
        false => Ok(text.to_owned()),
    }
}

fn headers(text: &str) -> Result<Vec<(String, String)>, Error> {
    use ureq::http::{HeaderName, HeaderValue};
    let mut headers = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let parts = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        let usable = |(name, value): &(&str, &str)| {
            name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
        };
        let Some((name, value)) = parts.filter(usable) else {
            let reason = format!("line {number} is no header; give Name: value");
            return Err(Error::usage("--webhook-headers", reason));
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

/// A topic that can be published to.
fn publishable<'a>(flag: &'static str, topic: &'a str) -> Result<&'a str, Error> {
    let usable = !topic.is_empty()
        && topic.len() <= 512
        && !topic.starts_with(['/', '$'])
        && !topic.ends_with('/')
        && !topic.chars().any(|character| character.is_control() || matches!(character, '+' | '#'));
    let reason = || {
        format!(
            "{topic:?} is no topic to publish to; give levels such as home/front, without + # and a / at an end"
        )
    };
    if usable { Ok(topic) } else { Err(Error::usage(flag, reason())) }
}

/// A name as one level of a topic.
pub(crate) fn topic_level(name: &str) -> String {
    let special =
        |character: char| character.is_control() || matches!(character, '/' | '+' | '#' | '$' | ' ');
    name.chars().map(|character| if special(character) { '-' } else { character }).collect()
}

/// A number of bytes, with K, M or G for powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a number of bytes such as 65536, 64K or 10M".to_owned())
}

/// The host name of this device.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "narrows".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: OutputFlags,
    }

    fn outputs(words: &[&str]) -> Result<Outputs, Error> {
        Cli::try_parse_from([&["x"], words].concat()).unwrap().flags.check()
    }

    #[test]
    fn addresses_have_default_ports_and_topics() {
        let outputs = outputs(&["--mqtt", "mqtts://[::1]", "--mqtt-topic", "home/gate"]).unwrap();
        let mqtt = outputs.mqtt.unwrap();
        assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.tls), ("::1", 8883, true));
        assert_eq!(
            (mqtt.topic.as_deref(), mqtt.discovery.as_deref()),
            (Some("home/gate"), Some("homeassistant"))
        );
        assert_eq!(mqtt.picture, Some(Duration::from_secs(10)));
    }

    #[test]
    fn wrong_values_name_the_flag_and_the_way_out() {
        for (words, parts) in [
            (&["--mqtt", "http://x"][..], ["--mqtt: ", "mqtts://"]),
            (&["--mqtt", "mqtt://u:p@x"], ["--mqtt: ", "--mqtt-password-file"]),
            (&["--mqtt", "mqtt://x:0"], ["--mqtt: ", "mqtt://HOST:1883"]),
            (&["--mqtt", "mqtt://x/y"], ["--mqtt: ", "--mqtt-topic"]),
            (&["--mqtt", "mqtt://x", "--mqtt-topic", "a/#"], ["--mqtt-topic: ", "home/front"]),
            (&["--mqtt", "mqtt://x", "--mqtt-ca", "ca.pem"], ["--mqtt-ca: ", "mqtts://"]),
            (
                &["--mqtt", "mqtt://x", "--mqtt-password-file", "/nowhere"],
                ["--mqtt-password-file: ", "/nowhere"],
            ),
            (&["--mqtt-user", "x"], ["--mqtt-user: ", "needs --mqtt"]),
            (&["--webhook", "ftp://x/"], ["--webhook: ", "https://"]),
            (&["--webhook", "http://u@x/"], ["--webhook: ", "--webhook-headers"]),
            (&["--webhook", "/x"], ["--webhook: ", "http://HOST/PATH"]),
            (&["--webhook-only", "answered"], ["--webhook-only: ", "needs --webhook"]),
            (&["--page", "8080"], ["--page: ", "127.0.0.1:8080"]),
            (&["--page", "0.0.0.0:80"], ["--page: ", "--page-allow-remote"]),
            (&["--page-allow-remote"], ["--page-allow-remote: ", "needs --page"]),
            (&["--rotate-keep", "1"], ["--rotate-keep: ", "needs --lines FILE"]),
            (&["--lines", "x", "--rotate-size", "1"], ["--rotate-size: ", "4096"]),
        ] {
            let error = outputs(words).unwrap_err();
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{words:?}: {text}");
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
        }
    }

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!((size("4096"), size("64K"), size("2g")), (Ok(4096), Ok(65536), Ok(2 << 30)));
        assert!(size("").is_err() && size("1.5M").is_err() && size("99999999999G").is_err());
    }

    #[test]
    fn headers_are_lines_of_name_and_value() {
        assert_eq!(headers("X-A: b: c\n\nauthorization:Bearer x").unwrap().len(), 2);
        let error = headers("X-A: b\nno header").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("no header\""), "{error}");
    }

    #[test]
    fn the_page_listens_on_this_device_alone_unless_told_otherwise() {
        assert!(outputs(&["--page", "[::1]:80"]).unwrap().page.is_some());
        let page = outputs(&["--page", "0.0.0.0:80", "--page-allow-remote", "--page-name", "Cam.Example"]);
        assert!(page.unwrap().page.unwrap().names.contains(&"cam.example".to_owned()));
    }
}
