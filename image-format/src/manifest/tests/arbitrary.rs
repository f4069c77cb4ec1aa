//! Manifests with any content.

use proptest::prelude::*;

use super::*;

fn any_content() -> impl Strategy<Value = Content> {
    let strings = ("[a-z0-9._-]{1,64}", "[A-Za-z0-9][A-Za-z0-9._~^-]{0,63}", "[!-~]([ -~]{0,126}[!-~])?");
    let sizes = (1..1_u64 << 30, 1..1_u64 << 48, 1..1_u64 << 48);
    let rest = (
        any::<(bool, bool)>(),
        1..=u32::MAX,
        any::<(u32, u32, u32)>(),
        prop::collection::vec("[A-Za-z0-9,._-]{1,128}", 0..4),
        // No letter r, s or quote can begin a reserved key here.
        "([a-q=.,]{1,6}( [a-q=.,]{1,6}){0,8})?",
        any::<([u8; 32], [u8; 32], [u8; 16])>(),
        prop::collection::vec(("x[a-z0-9-]{1,31}", 1..1_u64 << 48), 0..3),
    );
    (strings, sizes, rest).prop_map(|((os_id, version, title), (blocks, linux, initrd), rest)| {
        let ((aarch64, unified), epoch, updater, compatible, options, (hash, salt, uuid), unknown) = rest;
        let architecture = if aarch64 { Architecture::Aarch64 } else { Architecture::X86_64 };
        let size = blocks * BLOCK;
        let payload = |name: &str, kind, required, size| Payload {
            name: name.to_owned(),
            kind,
            required,
            size,
            sha256: Digest::of(name),
        };
        let verity = Verity {
            root_hash: hash.into(),
            salt,
            uuid: crate::verity::Uuid(uuid),
            data_blocks: blocks,
            hash_offset: size,
        };
        let mut payloads = vec![payload("root", PayloadKind::Root(verity), true, size)];
        if unified {
            payloads.push(payload("uki", PayloadKind::Uki { machine: architecture }, true, linux));
        } else {
            payloads.push(payload("linux", PayloadKind::Linux { machine: architecture }, true, linux));
            payloads.push(payload("initrd", PayloadKind::Initrd, true, initrd));
        }
        for (index, (kind, size)) in unknown.into_iter().enumerate() {
            payloads.push(payload(&format!("extra-{index}"), PayloadKind::Unknown(kind), false, size));
        }
        Content {
            os_id,
            version,
            architecture,
            compatible,
            epoch,
            min_updater: UpdaterVersion(updater.0, updater.1, updater.2),
            title,
            options,
            payloads,
            slot_bytes: slot_bytes(size),
            esp_bytes: if unified { linux } else { linux + initrd },
            critical: Vec::new(),
        }
    })
}

proptest! {
    #[test]
    fn every_manifest_round_trips(content in any_content()) {
        let manifest = Manifest::new(content).unwrap();
        prop_assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn no_damaged_manifest_makes_the_parser_panic(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes);
    }
}
