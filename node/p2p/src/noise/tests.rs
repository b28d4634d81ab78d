use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use veil_protocol_spec::identity::SecretIdentity;

use super::*;
use crate::identity::keypair;

const PROLOGUE: &[u8] = b"here";

fn key(byte: u8) -> Keypair {
    keypair(&SecretIdentity::from_bytes(&[byte; 32]).unwrap()).unwrap()
}

fn curve(byte: u8) -> Curve {
    Curve::of(Zeroizing::new([byte; 32]))
}

/// What a peer says of its static key if it is honest.
fn claim(byte: u8, of: &Curve) -> Claim {
    let signature = key(byte).sign(&signed(of.pubkey())).unwrap();
    Claim { identity: key(byte).public(), signature }
}

type Shaken = Result<(PeerId, Secured), NoiseError>;

async fn both(
    here: (DuplexStream, &'static [u8], &Curve, &Claim),
    there: (DuplexStream, &'static [u8], &Curve, &Claim),
) -> (Shaken, Shaken) {
    let end = |(stream, prologue, curve, claim): (_, _, &Curve, &Claim), begins| {
        let (curve, claim) = (
            Curve::of(curve.secret.clone()),
            Claim { identity: claim.identity.clone(), signature: claim.signature.clone() },
        );
        async move { shake_as(ByteStream::new(stream), (&curve, &claim), prologue, begins).await }
    };
    tokio::join!(end(here, true), end(there, false))
}

/// Two ends, with what is between them: what one writes arrives at the other only if it is carried there.
async fn apart(key_lasts: [u64; 2]) -> ([Secured; 2], DuplexStream, DuplexStream) {
    let (a, b) = (curve(1), curve(2));
    let (here, there) = duplex(1 << 20);
    let (of_a, of_b) = (claim(1, &a), claim(2, &b));
    let shaken = both((here, PROLOGUE, &a, &of_a), (there, PROLOGUE, &b, &of_b)).await;
    let (mut here, mut there) = (shaken.0.unwrap().1, shaken.1.unwrap().1);
    let (near, between_here) = duplex(1 << 20);
    let (between_there, far) = duplex(1 << 20);
    (here.stream, there.stream) = (ByteStream::new(near), ByteStream::new(far));
    (here.keys.last, there.keys.last) = (key_lasts[0], key_lasts[1]);
    ([here, there], between_here, between_there)
}

async fn say(end: &mut Secured, bytes: &[u8]) {
    end.write_all(bytes).await.unwrap();
    end.flush().await.unwrap();
}

/// One message of what is between, with its length.
async fn message(between: &mut DuplexStream) -> Vec<u8> {
    let length = between.read_u16().await.unwrap();
    let mut message = length.to_be_bytes().to_vec();
    message.resize(LENGTH + usize::from(length), 0);
    between.read_exact(&mut message[LENGTH..]).await.unwrap();
    message
}

/// What an end makes of these messages: all that it reads, or why it reads no more.
async fn read(
    end: &mut Secured,
    mut there: DuplexStream,
    messages: &[&[u8]],
) -> io::Result<Vec<u8>> {
    for message in messages {
        there.write_all(message).await.unwrap();
    }
    drop(there);
    let mut all = Vec::new();
    end.read_to_end(&mut all).await.map(|_| all)
}

#[tokio::test]
async fn each_end_knows_the_other_and_reads_what_it_wrote() {
    let (here, there) = duplex(1 << 10);
    let prologue = PROLOGUE;
    let here = shake_as_owned(here, key(1), prologue, true);
    let there = shake_as_owned(there, key(2), prologue, false);
    let (here, there) = tokio::join!(here, there);
    let ((found_there, mut here), (found_here, mut there)) = (here.unwrap(), there.unwrap());
    assert_eq!(found_there, key(2).public().to_peer_id());
    assert_eq!(found_here, key(1).public().to_peer_id());
    for length in [1, MOST - 1, MOST, MOST + 1, 3 * MOST + 7] {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut arrived = vec![0; length];
        let saying = async {
            here.write_all(&bytes).await.unwrap();
            here.flush().await.unwrap();
        };
        let (_, read) = tokio::join!(saying, there.read_exact(&mut arrived));
        read.unwrap();
        assert!(arrived == bytes, "{length} bytes");
    }
    say(&mut there, b"answer").await;
    let mut answer = [0; 6];
    here.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    here.close().await.unwrap();
    assert_eq!(there.read(&mut answer).await.unwrap(), 0, "the end of one is read by the other");
}

async fn shake_as_owned(
    stream: DuplexStream,
    key: Keypair,
    prologue: &'static [u8],
    begins: bool,
) -> Shaken {
    shake(ByteStream::new(stream), &key, prologue, begins).await
}

#[tokio::test]
async fn nobody_passes_for_another_or_for_another_purpose() {
    let (a, b, c) = (curve(1), curve(2), curve(3));
    let (of_a, of_b) = (claim(1, &a), claim(2, &b));
    // The claim of a peer, which whoever once talked with it has, beside a static key of one's own.
    let (here, there) = duplex(1 << 10);
    let (ours, _) = both((here, PROLOGUE, &a, &of_a), (there, PROLOGUE, &c, &of_b)).await;
    assert!(matches!(ours, Err(NoiseError::Signature)), "{:?}", ours.err());
    let (here, there) = duplex(1 << 10);
    let (_, ours) = both((here, PROLOGUE, &c, &of_a), (there, PROLOGUE, &b, &of_b)).await;
    assert!(matches!(ours, Err(NoiseError::Signature)), "{:?}", ours.err());
    // No claim at all.
    for none in [&[][..], &[200, 1], &[0]] {
        assert!(matches!(Claim::check(none, a.pubkey()), Err(NoiseError::Nobody)), "{none:?}");
    }
    // Another cluster's handshake.
    let (here, there) = duplex(1 << 10);
    let (ours, _) = both((here, PROLOGUE, &a, &of_a), (there, b"elsewhere", &b, &of_b)).await;
    assert!(matches!(ours, Err(NoiseError::Noise(_))), "{:?}", ours.err());
}

/// Curve points of small order, with which everybody shares a secret.
#[test]
fn no_secret_is_shared_with_a_point_of_small_order() {
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one] {
        assert!(curve(1).dh(&point, &mut [0; 32]).is_err());
    }
    let (mut here, mut there) = ([0; 32], [0; 32]);
    curve(1).dh(curve(2).pubkey(), &mut here).unwrap();
    curve(2).dh(curve(1).pubkey(), &mut there).unwrap();
    assert_eq!(here, there);
}

#[tokio::test]
async fn whoever_carries_messages_alters_leaves_out_repeats_and_swaps_none() {
    let carry = async |choose: fn([Vec<u8>; 2]) -> Vec<Vec<u8>>| {
        let ([mut here, mut there], mut near, far) = apart([KEY_LASTS; 2]).await;
        let mut messages = [const { Vec::new() }; 2];
        for (said, message_of) in [b"first ", b"second"].into_iter().zip(&mut messages) {
            say(&mut here, said).await;
            *message_of = message(&mut near).await;
            let hidden = message_of.windows(said.len()).all(|window| window != said);
            assert!(hidden, "what is said is not in what is carried");
        }
        let chosen = choose(messages);
        let chosen: Vec<&[u8]> = chosen.iter().map(Vec::as_slice).collect();
        read(&mut there, far, &chosen).await.map_err(|error| error.kind())
    };
    assert_eq!(carry(|both| both.to_vec()).await.as_deref(), Ok(&b"first second"[..]));
    let altered = carry(|[mut first, second]| {
        first[LENGTH] ^= 1;
        vec![first, second]
    });
    assert_eq!(altered.await, Err(io::ErrorKind::InvalidData));
    let tag = carry(|[mut first, second]| {
        *first.last_mut().unwrap() ^= 1;
        vec![first, second]
    });
    assert_eq!(tag.await, Err(io::ErrorKind::InvalidData));
    let swapped = carry(|[first, second]| vec![second, first]).await;
    assert_eq!(swapped, Err(io::ErrorKind::InvalidData));
    let left_out = carry(|[_, second]| vec![second]).await;
    assert_eq!(left_out, Err(io::ErrorKind::InvalidData));
    let repeated = carry(|[first, second]| vec![first.clone(), first, second]).await;
    assert_eq!(repeated, Err(io::ErrorKind::InvalidData));
    let cut = carry(|[first, second]| vec![first, second[..9].to_vec()]).await;
    assert_eq!(cut, Err(io::ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn both_ends_change_their_keys_after_the_same_message() {
    for (key_lasts, reads) in [([2, 2], true), ([2, KEY_LASTS], false), ([KEY_LASTS, 2], false)] {
        let ([mut here, mut there], mut near, far) = apart(key_lasts).await;
        let mut messages = Vec::new();
        for said in [b"1", b"2", b"3", b"4", b"5"] {
            say(&mut here, said).await;
            messages.push(message(&mut near).await);
        }
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let read = read(&mut there, far, &messages).await;
        assert_eq!(read.ok().as_deref(), reads.then_some(&b"12345"[..]), "{key_lasts:?}");
    }
}
