use super::*;
use crate::writer::{BootSource, ImageSpec, Sources, build};
use crate::{Architecture, UpdaterVersion, pe_machine};

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

fn image(keys: &[PrivateKey]) -> Vec<u8> {
    let spec = ImageSpec {
        os_id: "ralphos".to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::Aarch64,
        compatible: Vec::new(),
        epoch: 1,
        min_updater: UpdaterVersion(0, 0, 0),
        title: "t".to_owned(),
        options: String::new(),
        level: 1,
        chunk_len: 4096,
        workers: None,
    };
    let linux = crate::arch::tests::pe_head(Architecture::Aarch64);
    assert!(pe_machine(&linux).is_ok());
    let mut out = Cursor::new(Vec::new());
    let sources = Sources {
        root: &mut Cursor::new([1; 9000]),
        boot: BootSource::Kernel { linux: &mut Cursor::new(linux), initrd: &mut Cursor::new([2; 10]) },
    };
    build(&spec, sources, keys, &mut out, &mut |_, _| {}).unwrap();
    out.into_inner()
}

/// Key ids and roles of the records, in order.
fn signers(file: &[u8]) -> Vec<(Role, crate::Digest)> {
    let head = UnverifiedImage::read_head(file).unwrap();
    head.signatures().records().iter().map(|record| (record.role, record.key_id)).collect()
}

fn sign(file: &mut Vec<u8>, key: &PrivateKey, roles: &[Role]) -> Result<SignOutcome, SignError> {
    let mut cursor = Cursor::new(std::mem::take(file));
    let outcome = add_signature(&mut cursor, key, roles);
    *file = cursor.into_inner();
    outcome
}

#[test]
fn img_36_signing_later_gives_what_signing_at_once_gives() {
    let at_once = image(&[key(1), key(2)]);
    let mut later = image(&[]);
    for n in [1, 2] {
        assert_eq!(sign(&mut later, &key(n), &Role::ALL).unwrap(), SignOutcome::Added);
    }
    assert!(later == at_once);
    let [one, two] = [1, 2].map(|n| key(n).public().key_id());
    let expected = [(Role::Manifest, one), (Role::Transport, one), (Role::Manifest, two), (Role::Transport, two)];
    assert_eq!(signers(&later), expected);
}

#[test]
fn img_36_signing_again_changes_nothing() {
    let mut file = image(&[key(1), key(2)]);
    let before = file.clone();
    assert_eq!(sign(&mut file, &key(1), &Role::ALL).unwrap(), SignOutcome::AlreadySigned);
    assert_eq!(sign(&mut file, &key(2), &[Role::Transport]).unwrap(), SignOutcome::AlreadySigned);
    assert!(file == before);
}

#[test]
fn img_36_only_the_signature_body_changes() {
    let mut file = image(&[key(1)]);
    let before = file.clone();
    sign(&mut file, &key(2), &[Role::Manifest]).unwrap();
    assert_eq!(file.len(), before.len());
    let changed: Vec<usize> = (0..file.len()).filter(|at| file[*at] != before[*at]).collect();
    let body = 2 * HEADER_LEN + UnverifiedImage::read_head(file.as_slice()).unwrap().manifest_len();
    assert_eq!(changed[0], body, "the count");
    assert!(changed[1..].iter().all(|at| (body + record_offset(2)..body + record_offset(3)).contains(at)));
    // The missing role is added later on its own.
    assert_eq!(sign(&mut file, &key(2), &Role::ALL).unwrap(), SignOutcome::Added);
    assert_eq!(signers(&file).len(), 4);
}

/// Makes writes durable only when told to, and loses power after a number of bytes written.
struct Unplugged {
    file: Cursor<Vec<u8>>,
    durable: Vec<u8>,
    left: usize,
}

impl Read for Unplugged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Unplugged {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for Unplugged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= len;
        if len == 0 { Err(io::Error::other("power cut")) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Durable for Unplugged {
    fn sync(&mut self) -> io::Result<()> {
        self.durable = self.file.get_ref().clone();
        Ok(())
    }
}

#[test]
fn img_36_a_cut_at_any_byte_leaves_the_old_signatures_or_the_new_ones() {
    let old = image(&[key(1)]);
    let mut new = old.clone();
    sign(&mut new, &key(2), &Role::ALL).unwrap();
    for left in 0..=2 * 128 + 4 {
        let mut target = Unplugged { file: Cursor::new(old.clone()), durable: old.clone(), left };
        let result = add_signature(&mut target, &key(2), &Role::ALL);
        assert_eq!(result.is_ok(), left == 2 * 128 + 4);
        // Either what reached the page cache survives, or only what was synced.
        for survivor in [target.file.get_ref(), &target.durable] {
            let records = signers(survivor);
            assert!(records == signers(&old) || records == signers(&new), "cut after {left} bytes: {records:?}");
            let mut mended = survivor.clone();
            sign(&mut mended, &key(2), &Role::ALL).unwrap();
            assert!(mended == new, "signing again after a cut after {left} bytes");
        }
    }
}

#[test]
fn attaching_finds_the_role() {
    let mut file = Cursor::new(image(&[]));
    let head = UnverifiedImage::read_head(file.get_ref().as_slice()).unwrap();
    let [manifest, transport] = Role::ALL.map(|role| key(3).sign(&head.to_be_signed(role)));
    let public = key(3).public();
    assert_eq!(attach_signature(&mut file, &public, &transport).unwrap(), (Role::Transport, SignOutcome::Added));
    assert_eq!(attach_signature(&mut file, &public, &manifest).unwrap(), (Role::Manifest, SignOutcome::Added));
    assert_eq!(attach_signature(&mut file, &public, &manifest).unwrap(), (Role::Manifest, SignOutcome::AlreadySigned));
    let before = file.get_ref().clone();
    let wrong = attach_signature(&mut file, &key(4).public(), &manifest);
    assert!(matches!(wrong, Err(SignError::NotASignature)));
    let body_only = key(3).sign(b"something else");
    assert!(matches!(attach_signature(&mut file, &public, &body_only), Err(SignError::NotASignature)));
    assert!(matches!(attach_signature(&mut file, &public, &manifest[1..]), Err(SignError::Length(63))));
    assert!(*file.get_ref() == before);
    assert_eq!(signers(file.get_ref()).len(), 2);
}

#[test]
fn a_false_record_under_a_keys_name_does_not_keep_it_from_signing() {
    let mut file = image(&[key(1)]);
    let body = 2 * HEADER_LEN + UnverifiedImage::read_head(file.as_slice()).unwrap().manifest_len();
    file[body + record_offset(0) + 64] ^= 1;
    assert_eq!(sign(&mut file, &key(1), &Role::ALL).unwrap(), SignOutcome::Added);
    let one = key(1).public().key_id();
    assert_eq!(signers(&file), [(Role::Manifest, one), (Role::Transport, one), (Role::Manifest, one)]);
}

#[test]
fn img_31_the_seventeenth_signature_of_a_role_is_refused() {
    let mut file = image(&[]);
    for n in 0..16 {
        sign(&mut file, &key(n), &Role::ALL).unwrap();
    }
    let before = file.clone();
    assert!(matches!(sign(&mut file, &key(16), &Role::ALL), Err(SignError::Full(_))));
    assert!(file == before);
}

#[test]
fn what_contradicts_itself_is_not_signed() {
    let good = image(&[key(1)]);
    let mut bad_table = good.clone();
    let data_start = UnverifiedImage::read_head(good.as_slice()).unwrap().data_start() as usize;
    bad_table[data_start - 1] ^= 1;
    assert!(matches!(sign(&mut bad_table, &key(2), &Role::ALL), Err(SignError::Claims(_))));
    let mut text = b"not an image at all, but long enough for a header".to_vec();
    assert!(matches!(sign(&mut text, &key(2), &Role::ALL), Err(SignError::Head(_))));
}

#[test]
fn a_real_file_is_signed_in_place() {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), image(&[key(1)])).unwrap();
    let mut file = File::options().read(true).write(true).open(path.path()).unwrap();
    assert_eq!(add_signature(&mut file, &key(2), &Role::ALL).unwrap(), SignOutcome::Added);
    assert!(std::fs::read(path.path()).unwrap() == image(&[key(1), key(2)]));
}
