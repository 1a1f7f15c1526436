//! The lab's /etc/worldshim/config.toml, for tests that run alone.

use std::fs;

const PATH: &str = "/etc/worldshim/config.toml";

/// A configuration that ends with this value.
pub struct Config;

impl Config {
    pub fn set(text: &str) -> Config {
        fs::create_dir_all("/etc/worldshim").expect("make /etc/worldshim");
        fs::write(PATH, text).expect("write the configuration");
        Config
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(PATH);
    }
}
