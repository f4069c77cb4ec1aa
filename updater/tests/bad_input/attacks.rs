//! What somebody without a key can do to a file, and with signatures that do not vouch for what they stand beside.

use image_format::{ImageSpec, Role};

use crate::lab::good_spec;
use crate::parts::{Parts, Plain, key, program_like};
use crate::table::{Attack, Random};

/// The image that the attacks start from, taken apart. Root of 5 blocks in 3 chunks, kernel of 2, initrd of 1.
pub fn good() -> Parts {
    Parts::of(&Plain::small().build(&good_spec(), &[key(1)]))
}

/// Another image of the same key and shape, version 4.
fn other() -> Parts {
    let plain = Plain { root: program_like(5 * 4096, 77), ..Plain::small() };
    Parts::of(&plain.build(&ImageSpec { version: "4.0.0".to_owned(), ..good_spec() }, &[key(1)]))
}

/// Where each of the four frames begins, and the data.
fn frame_starts(parts: &Parts) -> [usize; 5] {
    let mut starts = [0; 5];
    for (index, body) in [&parts.manifest, &parts.signatures, &parts.transport, &parts.table].into_iter().enumerate() {
        starts[index + 1] = starts[index] + 24 + body.len();
    }
    starts
}

fn chunks(parts: &Parts) -> usize {
    parts.table.len() / 96
}

pub fn all(random: &mut Random) -> Vec<Attack> {
    let mut attacks = truncated(random);
    attacks.extend(flipped(random));
    attacks.extend(other_frames());
    attacks.extend(lying_counts());
    attacks.extend(signatures());
    attacks.extend(spliced());
    attacks
}

fn truncated(random: &mut Random) -> Vec<Attack> {
    let (parts, file) = (good(), good().join());
    let starts = frame_starts(&parts);
    let data = starts[4];
    let mut head: Vec<usize> = starts[..4].iter().flat_map(|start| [*start, start + 7, start + 24]).collect();
    head.extend(starts[1..].iter().map(|start| start - 1));
    head.extend((0..20).map(|_| random.below(data)));
    let mut body: Vec<usize> = (0..chunks(&parts))
        .flat_map(|chunk| {
            let range = parts.encoded(chunk);
            [data + range.start, data + range.start + 1, data + range.end - 1]
        })
        .collect();
    body.extend((0..10).map(|_| data + random.below(file.len() - data)));
    let cut = |at: Vec<usize>| at.into_iter().map(|at| (format!("at {at}"), file[..at].to_vec())).collect();
    vec![
        Attack::files("truncated in its head", "not-an-image/truncated", cut(head)),
        Attack::files("truncated in its data", "fenced/truncated", cut(body)),
        Attack::file("trailing data", "fenced/trailing-data", [&file[..], b"\0"].concat()),
        Attack::file(
            "a zstd frame behind the last chunk",
            "fenced/trailing-data",
            [&file[..], b"\x28\xB5\x2F\xFD\x20\x01\x09\x00\x00a"].concat(),
        ),
    ]
}

fn flipped(random: &mut Random) -> Vec<Attack> {
    let (parts, file) = (good(), good().join());
    let starts = frame_starts(&parts);
    let mut flip = |from: usize, to: usize, times: usize| -> Vec<(String, Vec<u8>)> {
        let mut at: Vec<usize> = vec![from, to - 1];
        at.extend((0..times).map(|_| from + random.below(to - from)));
        at.into_iter()
            .map(|at| {
                let bit = random.below(8);
                let mut file = file.clone();
                file[at] ^= 1 << bit;
                (format!("bit {bit} of byte {at}"), file)
            })
            .collect()
    };
    let bodies: Vec<(usize, usize)> = (0..4).map(|frame| (starts[frame] + 24, starts[frame + 1])).collect();
    let mut headers = Vec::new();
    let mut magic = Vec::new();
    let mut versions = Vec::new();
    let mut kinds = Vec::new();
    let mut reserved = Vec::new();
    for start in &starts[..4] {
        magic.extend(flip(*start, start + 4, 2));
        headers.extend(flip(start + 4, start + 8, 6));
        magic.extend(flip(start + 8, start + 16, 2));
        versions.extend(flip(start + 16, start + 18, 0));
        kinds.extend(flip(start + 18, start + 20, 0));
        reserved.extend(flip(start + 20, start + 24, 0));
    }
    let records = bodies[1].0 + 8;
    let mut data = Vec::new();
    for chunk in 0..chunks(&parts) {
        let range = parts.encoded(chunk);
        data.extend(flip(starts[4] + range.start, starts[4] + range.end, 1));
    }
    vec![
        Attack::files("a bit of a frame's magic flipped", "not-an-image/no-frame", magic),
        Attack::files("a bit of a frame's version flipped", "not-an-image/format-version", versions),
        Attack::files("a bit of a frame's kind flipped", "not-an-image/frame-kind", kinds),
        Attack::files("a bit of a frame's reserved field flipped", "not-an-image/frame-reserved", reserved),
        // A length that stays within bounds shows when the next frame is not where it should be.
        Attack::files(
            "a bit of a frame's length flipped",
            "not-an-image/frame-length not-an-image/no-frame not-an-image/truncated",
            headers,
        ),
        Attack::files("a bit of the manifest flipped", "untrusted/wrong-signature", flip(bodies[0].0, bodies[0].1, 12)),
        Attack::files("a bit of the transport flipped", "untrusted/wrong-signature", flip(bodies[2].0, bodies[2].1, 6)),
        Attack::files("a bit of the table flipped", "untrusted/table-of-another", flip(bodies[3].0, bodies[3].1, 12)),
        Attack::files("a bit of a key id flipped", "untrusted/unknown-key", flip(records + 32, records + 64, 4)),
        Attack::files(
            "a bit of a signature flipped",
            "untrusted/wrong-signature",
            flip(records + 128 + 64, records + 256, 6),
        ),
        Attack::files(
            "a bit of a signature record's padding flipped",
            "not-an-image/signature-frame",
            flip(records + 2, records + 32, 2),
        ),
        Attack::files("a bit of a chunk flipped", "fenced/chunk-damaged", data),
    ]
}

fn other_frames() -> Vec<Attack> {
    let parts = good();
    let frames = [
        Parts::frame(1, &parts.manifest),
        Parts::frame(2, &parts.signatures),
        Parts::frame(3, &parts.transport),
        Parts::frame(4, &parts.table),
        parts.data.clone(),
    ];
    let foreign = b"\x50\x2A\x4D\x18\x04\0\0\0abcd".to_vec();
    let inserted = (0..5)
        .map(|at| {
            let mut file = frames.to_vec();
            file.insert(at, foreign.clone());
            (format!("at {at}"), file.concat())
        })
        // Behind the four frames it stands where the first chunk should be.
        .take(4)
        .collect();
    let swapped = [frames[1].clone(), frames[0].clone(), frames[2].clone(), frames[3].clone(), frames[4].clone()];
    vec![
        Attack::file("some text", "not-an-image/no-frame", b"this is no image at all, only some text".to_vec()),
        Attack::file("an empty file", "not-an-image/truncated", Vec::new()),
        Attack::file("frames in another order", "not-an-image/frame-kind", swapped.concat()),
        Attack::files("a foreign frame between ours", "not-an-image/no-frame", inserted),
    ]
}

/// Numbers in unsigned parts that ask for more than there is. What they cost in memory is asserted elsewhere.
fn lying_counts() -> Vec<Attack> {
    let parts = good();
    let starts = frame_starts(&parts);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = parts.join();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let lengths = [(0, 1_048_577_u32), (0, u32::MAX - 16), (1, 4121), (2, 593), (3, 16_777_248), (3, u32::MAX - 16)]
        .map(|(frame, len)| (format!("frame {frame}, {len}"), with(starts[frame] + 4, &(len + 16).to_le_bytes())));
    let count = starts[1] + 24;
    let counts = [33_u32, u32::MAX].map(|n| (format!("{n}"), with(count, &n.to_le_bytes())));
    // As much as a head may hold, and nothing behind it.
    let mut longest = Parts::frame(1, &vec![b' '; 1 << 20]);
    longest.extend(Parts::frame(2, &parts.signatures));
    longest.extend(Parts::frame(3, &parts.transport));
    longest.extend(Parts::frame(4, &vec![0; 16_777_152]));
    let seventeen = {
        let mut parts = parts.clone();
        parts.sign_as(&[(Role::Manifest, 1, 1); 17]);
        parts.join()
    };
    vec![
        Attack::files("a frame longer than allowed", "not-an-image/frame-length", lengths.to_vec()),
        Attack::files("a count of signatures beyond the body", "not-an-image/signature-frame", counts.to_vec()),
        Attack::file("seventeen signatures of a role", "not-an-image/signature-frame", seventeen),
        Attack::file("the longest head there can be, unsigned", "untrusted/wrong-signature", longest),
    ]
}

fn signatures() -> Vec<Attack> {
    use Role::{Manifest as M, Transport as T};
    let signed = |records: &[(Role, u8, u8)]| {
        let mut parts = good();
        parts.sign_as(records);
        parts.join()
    };
    let both = [(M, 1, 1), (T, 1, 1)];
    let mut swapped = good();
    (swapped.signatures[8], swapped.signatures[8 + 128]) = (2, 1);
    let mut unknown = good();
    unknown.signatures[9] = 2;
    // The identity as key, and a signature that holds for every message under it unless it is looked at strictly.
    let mut forged = good();
    let identity: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
    for record in [8, 8 + 128] {
        forged.signatures[record + 32..record + 64].copy_from_slice(image_format::Digest::of(identity).as_ref());
        forged.signatures[record + 64..record + 128].fill(0);
        forged.signatures[record + 64] = 1;
    }
    vec![
        Attack::file("no signature", "untrusted/unsigned", signed(&[])),
        Attack::file("only the manifest signed", "untrusted/unsigned", signed(&both[..1])),
        Attack::file("signed by an unknown key", "untrusted/unknown-key", signed(&[(M, 9, 9), (T, 9, 9)])),
        Attack::file("a forgery under a weak key", "untrusted/unknown-key", forged.join()),
        Attack::file("an unknown algorithm", "untrusted/unknown-key", unknown.join()),
        Attack::file(
            "a trusted key's name over another's signature",
            "untrusted/wrong-signature",
            signed(&[(M, 1, 9), (T, 1, 9)]),
        ),
        Attack::file("signatures of one role put into the other", "untrusted/wrong-signature", swapped.join()),
        Attack::file("one of two keys signed", "untrusted/threshold", signed(&both)).trusting(&[1, 2], 2),
        Attack::file("one key signing twice", "untrusted/threshold", signed(&[both[0], both[0], both[1], both[1]]))
            .trusting(&[1, 2], 2),
        Attack::file(
            "one key under two ids",
            "untrusted/wrong-signature",
            signed(&[(M, 1, 1), (M, 2, 1), (T, 1, 1), (T, 2, 1)]),
        )
        .trusting(&[1, 2], 2),
    ]
}

fn spliced() -> Vec<Attack> {
    let (new, other) = (good(), other());
    let mut signature = new.clone();
    signature.signatures = other.signatures.clone();
    let mut manifest = new.clone();
    manifest.manifest = other.manifest.clone();
    manifest.signatures[8..8 + 128].copy_from_slice(&other.signatures[8..8 + 128]);
    let mut transport = new.clone();
    transport.transport = other.transport.clone();
    transport.table = other.table.clone();
    transport.data = other.data.clone();
    transport.signatures[8 + 128..8 + 256].copy_from_slice(&other.signatures[8 + 128..8 + 256]);
    let mut table = new.clone();
    table.table = other.table.clone();
    let mut version = new.clone();
    version.data = other.data.clone();
    // Chunks 0 and 1 compress to different lengths, so what follows is moved.
    let (first, second) = (new.encoded(0), new.encoded(1));
    let (one, two) = (new.data[first.clone()].to_vec(), new.data[second.clone()].to_vec());
    let rest = new.data[second.end..].to_vec();
    let mut swapped = new.clone();
    swapped.data = [two.clone(), one.clone(), rest.clone()].concat();
    let mut repeated = new.clone();
    repeated.data = [one.clone(), one, rest.clone()].concat();
    let mut missing = new.clone();
    missing.data = [two, rest].concat();
    vec![
        Attack::file("signatures of another image", "untrusted/wrong-signature", signature.join()),
        Attack::file("a manifest spliced onto another table", "untrusted/transport-of-another", manifest.join()),
        Attack::file("a transport of another content", "untrusted/transport-of-another", transport.join()),
        Attack::file("a table of another image", "untrusted/table-of-another", table.join()),
        Attack::file("chunks from another version", "fenced/chunk-damaged", version.join()),
        Attack::file("chunks swapped", "fenced/chunk-damaged", swapped.join()),
        Attack::file("a chunk repeated", "fenced/chunk-damaged", repeated.join()),
        Attack::file("a chunk left out", "fenced/chunk-damaged", missing.join()),
    ]
}
