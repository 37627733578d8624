//! The matrix of interoperability: stock peers, roles, proofs, proposals and what is out of the ordinary, through
//! everything that can happen to a pair.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::lab::session::Show;
use crate::lab::{Implementation, Lab, Release};
use crate::scenarios::interop::course::{Auth, Course, Way};
use crate::scenarios::interop::event::{EVENTS, Event};
use crate::scenarios::interop::ppk;
use crate::scenarios::strongswan::Role;

const STABLE: Implementation = Implementation::Strongswan(Release::Stable);
const TESTING: Implementation = Implementation::Strongswan(Release::Testing);
const LIBRESWAN: Implementation = Implementation::Libreswan;
const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];
const AUTHS: [Auth; 4] = [Auth::Secret, Auth::Ed25519, Auth::Ecdsa, Auth::Certificates];
const WAYS: [Way; 7] =
    [Way::NoEsn, Way::Ipv6, Way::InUdp, Way::Ppk, Way::PpkOptional, Way::PpkUnknown, Way::PpkDiffers];
/// RFC 9867.
const EARLY_PPKS: [Way; 4] =
    [Way::EarlyPpk, Way::EarlyPpkOptional, Way::EarlyPpkUnknown, Way::EarlyPpkDiffers];
/// What every peer has.
const PROPOSALS: [&str; 3] =
    ["aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-ecp256", "aes256-sha256-ecp384"];
const ML_KEM: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";

/// All courses.
fn courses() -> Vec<Course> {
    let mut courses = Vec::new();
    for implementation in [STABLE, TESTING, LIBRESWAN] {
        let auths = if implementation == LIBRESWAN { &AUTHS[..1] } else { &AUTHS[..] };
        let ml_kem = (implementation == TESTING).then_some(ML_KEM);
        for role in ROLES {
            let plain = |proposals| Course::plain(implementation, role, proposals);
            for auth in auths {
                let proposals = PROPOSALS.into_iter().chain(ml_kem);
                courses.extend(proposals.map(|proposals| Course { auth: *auth, ..plain(proposals) }));
            }
            let first = ml_kem.unwrap_or(PROPOSALS[0]);
            courses.extend(WAYS.map(|way| Course { way, ..plain(first) }));
            // Libreswan 5.2 takes no selectors that a NAT has made wrong (RFC 7296 section 2.23.1). It alone knows PPKs in
            // IKE_INTERMEDIATE.
            if implementation == LIBRESWAN {
                courses.extend(EARLY_PPKS.map(|way| Course { way, ..plain(first) }));
            } else {
                courses.push(Course { way: Way::Nat, ..plain(first) });
                courses.push(Course { way: Way::PpkUnknown, auth: Auth::Ed25519, ..plain(first) });
                courses.push(Course { way: Way::Narrow, auth: Auth::Certificates, ..plain(first) });
            }
        }
    }
    courses
}

/// `cargo lab interop [WORD…]`: the courses whose line contains all of the words. Returns 1 when one fails.
///
/// # Errors
/// When there is no such course.
pub fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let mut courses = courses();
    courses.retain(|course| words.iter().all(|word| course.to_string().contains(word.as_str())));
    ensure!(!courses.is_empty(), "there is no line with {words:?} in it");
    let started = Instant::now();
    println!(
        "| peer | it | proof | proposal | also | {} |",
        EVENTS.map(|event| event.to_string()).join(" | ")
    );
    println!("|---|---|---|---|---|{}", "---|".repeat(EVENTS.len()));
    let (mut cells, mut failures) = (0, Vec::new());
    for course in &courses {
        let failure = go(*course, &mut cells);
        println!();
        if let Err(error) = failure {
            println!("{course}: FAILED: {error:?}");
            failures.push(course.to_string());
        }
    }
    println!(
        "{} lines, {cells} cells, {} failed, {} s",
        courses.len(),
        failures.len(),
        started.elapsed().as_secs()
    );
    failures.iter().for_each(|failure| println!("failed: {failure}"));
    Ok(i32::from(!failures.is_empty()))
}

/// Goes through a course and prints its line, a cell for each event; adds the cells to `cells`.
fn go(course: Course, cells: &mut usize) -> Result<()> {
    let lab = Lab::new(2)?;
    if matches!(course.way, Way::PpkDiffers | Way::EarlyPpkDiffers) {
        print!("| {course} |");
        let codes = ppk::differs(&lab, course).inspect_err(|_| print!(" FAILED |"))?;
        *cells += codes.len();
        print!(" none, another key, another name: {} |", codes.join(", "));
        return Ok(());
    }
    let mut ends = course.prepare(&lab)?;
    print!("| {} | {} |", ends.peer.version()?, course.words());
    for event in EVENTS {
        if !happens(course, event) {
            print!(" |");
            continue;
        }
        *cells += 1;
        let time = ends.undergo(&lab, event).inspect_err(|_| print!(" FAILED |"))?;
        print!(" {:.1} s |", time.as_secs_f64());
        // Nothing depends on it: it is to be seen while the next one runs.
        let _ = std::io::stdout().flush();
    }
    Ok(())
}

/// To notice that a peer is dead takes most of a minute and is the same in every course: one of each
/// peer and role is enough.
fn happens(course: Course, event: Event) -> bool {
    let first = (course.auth, course.proposals, course.way) == (Auth::Secret, PROPOSALS[0], Way::Plain);
    // Once we begin, strongSwan takes no PPK that is called otherwise than its own, required or not.
    let unknown = (course.way, course.role) == (Way::PpkUnknown, Role::Responder);
    let refuses = unknown && course.implementation != LIBRESWAN;
    let anew = matches!(event, Event::PeerDeletesIke | Event::WeDelete);
    (event != Event::PeerDies || first) && !(refuses && anew)
}
