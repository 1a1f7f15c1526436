//! docker-registry on a port of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::common::container::Container;
use crate::common::ctr::{BUSYBOX, PYTHON, within};
use crate::common::suite::Test;

/// Whom a registry with a password lets in.
pub const USER: &str = "ann";
pub const PASSWORD: &str = "s3cret:word";
/// bcrypt of it.
const HASHED: &str = "$2y$05$abcdefghijklmnopqrstuu2JDQLR7mbHhdpill4/jMLDoVbsBhlUi";

/// A registry that ends with this value.
pub struct Registry {
    child: Child,
    pub address: String,
    storage: PathBuf,
}

impl Registry {
    pub fn serve(test: &Test) -> Registry {
        Registry::start(test, "", "")
    }

    /// Speaks HTTPS, with a certificate of an authority that only the file `ca.pem` knows.
    pub fn with_tls(test: &Test) -> Registry {
        let file = |name: &str| test.path(name).display().to_string();
        let [ca, ca_key, request] = ["ca.pem", "ca.key", "request.pem"].map(file);
        let [certificate, key, names] = ["server.pem", "server.key", "names"].map(file);
        fs::write(&names, "subjectAltName=IP:127.0.0.1\n").expect("write the names");
        let new = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"];
        let authority = ["-x509", "-subj", "/CN=Lab", "-days", "2", "-out", &ca];
        tool("openssl", &[&new[..], &[&ca_key], &authority].concat());
        let asks = ["-subj", "/CN=registry", "-out", &request];
        tool("openssl", &[&new[..], &[&key], &asks].concat());
        let sign = [
            "x509",
            "-req",
            "-in",
            &request,
            "-days",
            "2",
            "-CAcreateserial",
        ];
        let by = [
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-extfile",
            &names,
            "-out",
            &certificate,
        ];
        tool("openssl", &[&sign[..], &by].concat());
        let tls = format!(", tls: {{certificate: {certificate}, key: {key}}}");
        Registry::start(test, "", &tls)
    }

    pub fn with_password(test: &Test) -> Registry {
        let file = test.path("htpasswd");
        fs::write(&file, format!("{USER}:{HASHED}\n")).expect("write the passwords");
        let auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}",
            file.display()
        );
        Registry::start(test, &auth, "")
    }

    fn start(test: &Test, auth: &str, tls: &str) -> Registry {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let storage = test.path("registry");
        let config = test.path("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{address}\"{tls}}}\nlog: {{level: error}}\n{auth}\n",
            storage.display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let log = fs::File::create(test.path("registry.log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Registry {
            child,
            address,
            storage,
        };
        within(20, "docker-registry answers", || {
            TcpStream::connect(&registry.address).is_ok()
        });
        registry
    }

    /// A reference in it.
    pub fn at(&self, below: &str) -> String {
        format!("{}/{below}", self.address)
    }

    /// The file of a blob or manifest.
    pub fn file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join(format!(
            "docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        ))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs another tool, which must succeed; gives what it prints.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("run {program}: {error}"));
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {arguments:?}: {said}");
    stdout
}

/// A container that sleeps.
pub fn small(test: &Test, name: &str) -> Container {
    Container::run(test, name, &[], BUSYBOX, &["sleep", "1000"])
}

/// A container with so many MiB of memory that cannot be compressed.
pub fn big(test: &Test, name: &str, mib: u32) -> Container {
    let program = format!(
        "import os, time; held = os.urandom({mib} << 20); open('/up', 'w'); time.sleep(1e6)"
    );
    let container = Container::run(test, name, &[], PYTHON, &["python3", "-c", &program]);
    within(60, "a big process", || container.path("/up").exists());
    container
}
