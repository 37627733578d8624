//! What a host of the lab served to browsers, kept outside it: the answer as it was, and pictures of it by a real browser,
//! where this machine has one. The browser gets the very answer, with its headers, and nothing else.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// An answer that a host gave over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// What its files are called.
    pub name: String,
    /// All of it, with its head.
    pub http: String,
    /// The pictures that are wanted of it.
    pub looks: Vec<PageLook>,
}

/// How a browser shows a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageLook {
    /// To somebody who likes it light.
    Light,
    /// To somebody who likes it dark.
    Dark,
    /// With JavaScript off.
    Still,
}

/// What the browser may be called.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long it may take for a picture.
const LIMIT: Duration = Duration::from_secs(120);
/// The width and the height of pictures.
const SIZE: &str = "--window-size=1360,1500";
const PAUSE: Duration = Duration::from_millis(10);

impl PageLook {
    fn name(self) -> &'static str {
        match self {
            PageLook::Light => "light",
            PageLook::Dark => "dark",
            PageLook::Still => "still",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            PageLook::Dark => "--blink-settings=preferredColorScheme=0",
            PageLook::Light | PageLook::Still => "--blink-settings=preferredColorScheme=1",
        }
    }
}

impl Served {
    /// Writes it into `directory`, as HTML and as pictures. Returns the files.
    ///
    /// # Errors
    /// When a file cannot be written, or the browser fails.
    pub fn keep(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory)?;
        let (_, html) = self.http.split_once("\r\n\r\n").context("an answer without a head")?;
        let page = directory.join(format!("{}.html", self.name));
        fs::write(&page, html)?;
        let mut files = vec![page];
        if let Some(browser) = browser() {
            for look in &self.looks {
                let picture = directory.join(format!("{}-{}.png", self.name, look.name()));
                self.picture(&browser, *look, &picture)?;
                files.push(picture);
            }
        }
        Ok(files)
    }

    fn picture(&self, browser: &Path, look: PageLook, picture: &Path) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--hide-scrollbars", SIZE, look.setting()]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--screenshot={}", picture.display()));
        command.arg(format!("http://{}/", listener.local_addr()?));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", browser.display()))?;
        let http = match look {
            // A browser told so by a page runs no script of it.
            PageLook::Still => self.http.replacen("\r\n", "\r\ncontent-security-policy: sandbox\r\n", 1),
            PageLook::Light | PageLook::Dark => self.http.clone(),
        };
        let outcome = serve_until_end(&http, &listener, &mut child);
        if outcome.is_err() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        outcome?;
        ensure!(picture.is_file(), "{} has made no picture", browser.display());
        Ok(())
    }
}

/// Answers a browser until it ends.
fn serve_until_end(http: &str, listener: &TcpListener, child: &mut Child) -> Result<()> {
    let begun = Instant::now();
    loop {
        match listener.accept() {
            // Whoever goes before the answer gets none.
            Ok((client, _)) => drop(answer(http, client)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the browser ended with {status}");
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            bail!("the browser made no picture in {LIMIT:?}");
        }
    }
}

fn answer(http: &str, mut client: TcpStream) -> io::Result<()> {
    const HEAD: usize = 8192;
    client.set_nonblocking(false)?;
    // Browsers open connections that they may want later.
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut head = [0; HEAD];
    let length = client.read(&mut head)?;
    let answer = if head[..length].starts_with(b"GET / ") {
        http.as_bytes()
    } else {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    };
    client.write_all(answer)
}

/// The browser of this machine, if there is one.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = |name: &&str| std::env::split_paths(&path).map(|it| it.join(name)).find(|it| it.is_file());
    BROWSERS.iter().find_map(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_without_its_head() {
        let directory = tempfile::tempdir().unwrap();
        let http = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>\r\n\r\n".to_owned();
        let files = Served { name: "x".to_owned(), http, looks: Vec::new() }.keep(directory.path()).unwrap();
        assert_eq!(files, [directory.path().join("x.html")]);
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "<p>\r\n\r\n");
    }
}
