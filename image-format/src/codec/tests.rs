use zstd::zstd_safe::{CCtx, CParameter};

use super::*;

fn plain() -> Vec<u8> {
    (0..100_000_u32).map(|n| (n / 7) as u8).collect()
}

fn chunk_of(plain: &[u8], encoded: &[u8]) -> Chunk {
    Chunk {
        payload: 0,
        encoding: Encoding::Zstd,
        plain_len: plain.len() as u32,
        plain_offset: 0,
        encoded_offset: 0,
        encoded_len: encoded.len() as u32,
        plain_sha256: Digest::of(plain),
        encoded_sha256: Digest::of(encoded),
    }
}

fn frame(plain: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    for parameter in parameters {
        context.set_parameter(*parameter).unwrap();
    }
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut encoded, plain).unwrap();
    encoded
}

/// A frame as a stream writes it that was not told the length beforehand.
fn streamed(plain: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.set_parameter(CParameter::WindowLog(window_log)).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

/// A frame with a window descriptor and an eight-byte content size, holding `plain` in one raw block.
fn raw_frame(window_descriptor: u8, content_size: u64, plain: &[u8]) -> Vec<u8> {
    let mut frame = FRAME_MAGIC.to_vec();
    frame.extend([0xC0, window_descriptor]);
    frame.extend(content_size.to_le_bytes());
    let block_header = (plain.len() as u32) << 3 | 1;
    frame.extend(&block_header.to_le_bytes()[..3]);
    frame.extend(plain);
    frame
}

fn decode(plain: &[u8], encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new();
    decoder.decode(&chunk_of(plain, encoded), encoded, None)?;
    Ok(decoder.plain().to_vec())
}

fn header_error(plain: &[u8], encoded: &[u8]) -> FrameHeaderError {
    match decode(plain, encoded) {
        Err(DecodeError::Header(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn img_53_accepts_frames_of_every_header_shape() {
    for len in [1, 255, 256, 65_791, 65_792, 100_000] {
        let plain = &plain()[..len];
        for checksum in [false, true] {
            assert_eq!(decode(plain, &frame(plain, &[CParameter::ChecksumFlag(checksum)])).unwrap(), plain);
        }
        // Window descriptors up to 2^23 exactly.
        for descriptor in [0, 7, 8, 13 << 3] {
            if len <= 256 {
                assert_eq!(decode(plain, &raw_frame(descriptor, len as u64, plain)).unwrap(), plain);
            }
        }
    }
}

#[test]
fn img_53_a_decoder_serves_many_chunks() {
    let (long, short) = (plain(), vec![7; 10]);
    let mut decoder = Decoder::new();
    for plain in [&long, &short, &long] {
        let encoded = frame(plain, &[]);
        decoder.decode(&chunk_of(plain, &encoded), &encoded, None).unwrap();
        assert_eq!(decoder.plain(), plain);
    }
}

#[test]
fn img_53_windows_above_2_to_the_23_are_refused() {
    let small = [0; 16];
    let eighths_more = 13 << 3 | 1;
    assert_eq!(header_error(&small, &raw_frame(eighths_more, 16, &small)), FrameHeaderError::Window(9 << 20));
    assert_eq!(header_error(&small, &raw_frame(17 << 3, 16, &small)), FrameHeaderError::Window(1 << 27));
    assert_eq!(header_error(&small, &raw_frame(0xFF, 16, &small)), FrameHeaderError::Window(15 << 38));
}

#[test]
fn img_53_the_header_tells_the_content_size() {
    let plain = plain();
    assert_eq!(header_error(&plain, &streamed(&plain, 27)), FrameHeaderError::NoContentSize);
    assert_eq!(header_error(&plain, &streamed(&plain, 20)), FrameHeaderError::NoContentSize);
    assert_eq!(header_error(&plain, &frame(&plain[1..], &[])), FrameHeaderError::ContentSize(99_999));
    let bomb = frame(&vec![0; 64 << 20], &[]);
    assert_eq!(header_error(&plain, &bomb), FrameHeaderError::ContentSize(64 << 20));
    assert_eq!(header_error(&[0; 16], &raw_frame(0, u64::MAX, &[0; 16])), FrameHeaderError::ContentSize(u64::MAX));
}

#[test]
fn img_53_exactly_one_ordinary_frame() {
    let plain = plain();
    let good = frame(&plain, &[]);
    let skippable = b"\x5A\x2A\x4D\x18\x04\0\0\0aaaa".to_vec();
    assert_eq!(header_error(&plain, &[good.clone(), good.clone()].concat()), FrameHeaderError::NotOneFrame);
    assert_eq!(header_error(&plain, &[good.clone(), skippable.clone()].concat()), FrameHeaderError::NotOneFrame);
    assert_eq!(header_error(&plain, &[good.clone(), vec![0]].concat()), FrameHeaderError::NotOneFrame);
    assert_eq!(header_error(&plain, &good[..good.len() - 1]), FrameHeaderError::NotOneFrame);
    assert_eq!(header_error(&plain, &[skippable, good].concat()), FrameHeaderError::Magic);
    // Frames of zstd 0.7, which the library could be built to understand.
    assert_eq!(header_error(&plain, b"\x27\xB5\x2F\xFD\0\0\0\0"), FrameHeaderError::Magic);
    assert_eq!(header_error(&plain, b""), FrameHeaderError::Magic);
    for len in 4..12 {
        assert_eq!(header_error(&[0; 16], &raw_frame(0, 16, &[0; 16])[..len]), FrameHeaderError::Short);
    }
}

#[test]
fn img_53_no_dictionary_no_reserved_bit() {
    let plain = plain();
    let mut encoded = frame(&plain, &[]);
    for id_size in 1..=3 {
        encoded[4] = encoded[4] & !3 | id_size;
        assert_eq!(header_error(&plain, &encoded), FrameHeaderError::Dictionary);
    }
    encoded[4] = encoded[4] & !3 | 8;
    assert_eq!(header_error(&plain, &encoded), FrameHeaderError::Reserved);
}

#[test]
fn img_53_digests_in_order() {
    let plain = plain();
    let encoded = frame(&plain, &[]);
    let good = chunk_of(&plain, &encoded);
    let mut decoder = Decoder::new();

    // The encoded digest comes first: what it does not cover is not even looked at.
    let garbage = vec![0xFF; encoded.len()];
    assert!(matches!(decoder.decode(&good, &garbage, None), Err(DecodeError::EncodedDigest)));
    for at in [0, 4, encoded.len() / 2, encoded.len() - 1] {
        let mut flipped = encoded.clone();
        flipped[at] ^= 1;
        assert!(matches!(decoder.decode(&good, &flipped, None), Err(DecodeError::EncodedDigest)), "byte {at}");
    }
    let other_content = Chunk { plain_sha256: Digest::of(b"other"), ..good };
    assert!(matches!(decoder.decode(&other_content, &encoded, None), Err(DecodeError::PlainDigest)));
    // A signed chunk with a damaged frame: zstd's own checksum reports it.
    let mut damaged = frame(&plain, &[CParameter::ChecksumFlag(true)]);
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(decode(&plain, &damaged), Err(DecodeError::Zstd(_))));
}

#[test]
fn img_60_buffers_have_exactly_the_size_that_is_needed() {
    let mut buffer = Vec::new();
    for len in [10, 1000, 1001, 5, 1002] {
        fit(&mut buffer, len);
        assert_eq!(buffer.len(), len);
    }
    assert_eq!(buffer.capacity(), 1002);
}
