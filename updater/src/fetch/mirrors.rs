//! The addresses one image may come from, and what each did wrong: who is asked next, and when it is over (FET-27, FET-28). Pure: the
//! clock and the dice are the caller's.

use std::time::Duration;

use super::backoff::Retry;
use super::fault::{Failure, Fault, FetchError, without_credentials};

/// One address.
#[derive(Debug)]
pub struct Mirror {
    /// As it was given.
    pub url: String,
    /// Where its redirects led: asked directly, until that fails.
    pub direct: Option<String>,
    /// The file's mark there (FET-24).
    pub etag: Option<String>,
    /// It answers with the whole file, whatever is asked (FET-25).
    pub whole: bool,
    fault: Option<Fault>,
    times: u32,
    /// Never asked again.
    struck: bool,
    /// Has failed since the last progress, or the last round.
    failed: bool,
}

/// What to do after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask the current mirror, after so long.
    After(Duration),
    /// Nobody is left, or it has taken too long.
    Over,
}

/// All addresses, the operator's first one first.
#[derive(Debug)]
pub struct Mirrors {
    list: Vec<Mirror>,
    current: usize,
    /// Rounds without progress.
    rounds: u32,
    /// When the first failure since progress was.
    failing_since: Option<Duration>,
    last: usize,
}

impl Mirrors {
    /// Addresses in the order in which they are asked; at least one.
    pub fn new(urls: Vec<String>) -> Self {
        let mirror = |url| Mirror {
            url,
            direct: None,
            etag: None,
            whole: false,
            fault: None,
            times: 0,
            struck: false,
            failed: false,
        };
        Mirrors { list: urls.into_iter().map(mirror).collect(), current: 0, rounds: 0, failing_since: None, last: 0 }
    }

    /// The number of the one to ask.
    pub fn current(&self) -> usize {
        self.current
    }

    /// One of them.
    pub fn get(&mut self, number: usize) -> &mut Mirror {
        &mut self.list[number]
    }

    /// Something came.
    pub fn progress(&mut self) {
        self.rounds = 0;
        self.failing_since = None;
        self.list.iter_mut().for_each(|mirror| mirror.failed = false);
    }

    /// `number` did this. Who is asked next is [`Mirrors::current`] then.
    pub fn fault(&mut self, number: usize, fault: Fault, retry: &Retry, now: Duration, dice: u64) -> Next {
        let asked = fault.retry_after();
        // Not since the last progress: nothing may have been asked for in between.
        let since = *self.failing_since.get_or_insert(now);
        let mirror = &mut self.list[number];
        mirror.struck |= fault.is_final();
        mirror.failed = true;
        mirror.times += 1;
        mirror.fault = Some(fault);
        self.last = number;
        let count = self.list.len();
        let after = (1..=count).map(|step| (number + step) % count);
        let live: Vec<usize> = after.filter(|at| !self.list[*at].struck).collect();
        if let Some(fresh) = live.iter().find(|at| !self.list[**at].failed) {
            self.current = *fresh;
            return Next::After(Duration::ZERO);
        }
        let Some(next) = live.first() else { return Next::Over };
        self.current = *next;
        self.rounds += 1;
        self.list.iter_mut().for_each(|mirror| mirror.failed = false);
        match retry.wait(self.rounds, now.saturating_sub(since), asked, dice) {
            Some(wait) => Next::After(wait),
            None => Next::Over,
        }
    }

    /// Is there anybody but `number` who may be asked?
    pub fn others(&self, number: usize) -> bool {
        self.list.iter().enumerate().any(|(at, mirror)| at != number && !mirror.struck)
    }

    /// Is `number` not asked again?
    pub fn is_struck(&self, number: usize) -> bool {
        self.list[number].struck
    }

    /// What to tell when it is over.
    pub fn error(&mut self, received: u64) -> FetchError {
        let last = self.last;
        let order = (0..self.list.len()).filter(|at| *at != last).chain([last]);
        let failures = order
            .filter_map(|at| {
                let mirror = &mut self.list[at];
                let fault = mirror.fault.take()?;
                Some(Failure { url: without_credentials(&mirror.url), fault, times: mirror.times })
            })
            .collect();
        FetchError { failures, received }
    }

    /// What went wrong with whom so far, for a person; nothing when nothing did.
    pub fn notes(&self) -> Vec<String> {
        self.list
            .iter()
            .filter_map(|mirror| {
                let fault = mirror.fault.as_ref()?;
                let times = if mirror.times > 1 { format!(" ({} times)", mirror.times) } else { String::new() };
                Some(format!("{} {fault}{times}", without_credentials(&mirror.url)))
            })
            .collect()
    }
}

/// The whole address of the image at a mirror: one that ends in `/` is a folder, and the name of the file is that of `image`.
pub fn mirror_address(image: &str, mirror: &str) -> Option<String> {
    if !mirror.ends_with('/') {
        return Some(mirror.to_owned());
    }
    let path = image.split(['?', '#']).next()?.split_once("://")?.1;
    let name = path.rsplit_once('/')?.1;
    (!name.is_empty()).then(|| format!("{mirror}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(8),
        rounds: 3,
        dry: Duration::from_secs(1000),
    };

    fn mirrors(count: usize) -> Mirrors {
        Mirrors::new((0..count).map(|at| format!("http://me:pw@m{at}/x")).collect())
    }

    fn fail(mirrors: &mut Mirrors, fault: Fault) -> Next {
        let current = mirrors.current();
        mirrors.fault(current, fault, &RETRY, Duration::ZERO, 1023)
    }

    fn gone() -> Fault {
        Fault::Status { status: 404, retry_after: None }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn fet_28_each_is_asked_before_anybody_waits() {
        let mut mirrors = mirrors(3);
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(Duration::ZERO));
        assert_eq!(mirrors.current(), 1);
        assert_eq!(fail(&mut mirrors, gone()), Next::After(Duration::ZERO));
        assert_eq!(mirrors.current(), 2);
        // The round is over; 1 is struck, and 0 is asked again after a pause.
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(SECOND));
        assert_eq!(mirrors.current(), 0);
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(Duration::ZERO));
        assert_eq!(mirrors.current(), 2);
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(2 * SECOND));
    }

    #[test]
    fn fet_27_progress_starts_the_counting_over() {
        let mut mirrors = mirrors(1);
        for _ in 0..20 {
            assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(SECOND));
            mirrors.progress();
        }
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(SECOND));
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::After(2 * SECOND));
        assert_eq!(fail(&mut mirrors, Fault::EndedEarly), Next::Over);
    }

    #[test]
    fn fet_27_it_ends_when_nothing_came_for_long() {
        let mut mirrors = mirrors(1);
        // That it was quiet before is no failure.
        let mut at = |now| mirrors.fault(0, Fault::EndedEarly, &RETRY, now, 1023);
        assert_eq!(at(5 * RETRY.dry), Next::After(SECOND));
        assert_eq!(at(6 * RETRY.dry), Next::Over);
    }

    #[test]
    fn fet_28_the_end_names_all_of_them_and_no_password() {
        let mut mirrors = mirrors(2);
        assert_eq!(fail(&mut mirrors, gone()), Next::After(Duration::ZERO));
        assert!(mirrors.others(0) && !mirrors.others(1));
        assert_eq!(fail(&mut mirrors, Fault::OtherBytes { chunk: 3 }), Next::Over);
        assert_eq!(mirrors.notes().len(), 2);
        let error = mirrors.error(0);
        let text = error.to_string();
        assert!(
            text.starts_with("http://m0/x answered 404") && text.contains("http://m1/x has another version"),
            "{text}"
        );
        assert!(!text.contains("pw"), "{text}");
        assert_eq!(error.cause(), "http-other-bytes");
    }

    #[test]
    fn fet_28_a_folder_takes_the_name_of_the_file() {
        let address = |mirror| mirror_address("https://me:pw@a/x/v2.zst?token=1", mirror);
        assert_eq!(address("http://b/y/").as_deref(), Some("http://b/y/v2.zst"));
        assert_eq!(address("http://b/other.zst").as_deref(), Some("http://b/other.zst"));
        assert_eq!(mirror_address("https://a", "http://b/"), None);
        assert_eq!(mirror_address("https://a/", "http://b/"), None);
    }
}
