// Licensed under the Apache License, Version 2.0 (the "License"); you may
// not use this file except in compliance with the License. You may obtain
// a copy of the License at
//
//      http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
// WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
// License for the specific language governing permissions and limitations
// under the License.

//! A guest owner made of virtee's sev library, as sevctl is.
//!
//! Reads commands, one a line, of words separated by a space; bytes are
//! hexadecimal. Answers each with a line, "error" first when it failed.
//!
//!     start FLAGS MAJOR MINOR CHAIN         -> GODH SESSION TEK TIK
//!     finish DIGEST MAJOR MINOR BUILD MEASUREMENT SECRET
//!                                           -> HEADER CIPHERTEXT
//!
//! CHAIN is PDH, PEK, OCA, CEK, ASK and ARK; it is verified.

use std::io::{BufRead, Write};

use sev::certs::sev::Chain;
use sev::firmware::host::{Build, Version};
use sev::launch::sev::{HeaderFlags, Measurement, Policy, PolicyFlags};
use sev::parser::{Decoder, Encoder};
use sev::session::{Initialized, Session};

type Outcome = Result<String, Box<dyn std::error::Error>>;

fn to_hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16))
        .collect()
}

fn start(words: &[&str], kept: &mut Option<Session<Initialized>>) -> Outcome {
    let policy = Policy {
        flags: PolicyFlags::from_bits_truncate(words[0].parse()?),
        minfw: Version { major: words[1].parse()?, minor: words[2].parse()? },
    };
    let chain = Chain::decode(&mut &from_hex(words[3])?[..], ())?;
    let session = Session::try_from(policy)?;
    let start = session.start(chain).map_err(|error| format!("{error:?}"))?;
    let mut certificate = Vec::new();
    start.cert.encode(&mut certificate, ())?;
    let parts = start.session;
    let buffer = [
        &parts.nonce[..],
        &parts.wrap_tk[..],
        &parts.wrap_iv[..],
        &parts.wrap_mac[..],
        &parts.policy_mac[..],
    ]
    .concat();
    let answer = [&certificate[..], &buffer[..], &session.tek[..], &session.tik[..]]
        .map(to_hex)
        .join(" ");
    *kept = Some(session);
    Ok(answer)
}

fn finish(words: &[&str], kept: &mut Option<Session<Initialized>>) -> Outcome {
    let session = kept.take().ok_or("no session was started")?;
    let build = Build {
        version: Version { major: words[1].parse()?, minor: words[2].parse()? },
        build: words[3].parse()?,
    };
    let blob = from_hex(words[4])?;
    let measurement = Measurement {
        measure: blob[..32].try_into()?,
        mnonce: blob[32..].try_into()?,
    };
    let verified = session.verify(&from_hex(words[0])?, build, measurement)?;
    let secret = verified
        .secret(HeaderFlags::default(), &from_hex(words[5])?)
        .map_err(|error| format!("{error:?}"))?;
    let header = [
        &secret.header.flags.bits().to_le_bytes()[..],
        &secret.header.iv[..],
        &secret.header.mac[..],
    ]
    .concat();
    Ok(format!("{} {}", to_hex(&header), to_hex(&secret.ciphertext)))
}

fn main() -> std::io::Result<()> {
    let mut kept = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[0] {
            "start" => start(&words[1..], &mut kept),
            "finish" => finish(&words[1..], &mut kept),
            _ => Err("unknown command".into()),
        };
        match answer {
            Ok(text) => println!("{text}"),
            Err(error) => println!("error {error:?}"),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
