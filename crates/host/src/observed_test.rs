use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use riad_disk::{Disk, MemDisk};

use super::Observed;

#[test]
fn the_first_read_is_told_and_only_that() {
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(4096).unwrap());
    let observed = Observed::new(
        disk,
        Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }),
    );
    observed.write(0, &[1; 512]).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 0);
    let mut sector = [0; 512];
    for _ in 0..3 {
        observed.read(0, &mut sector).unwrap();
    }
    assert_eq!((sector[0], told.load(Ordering::Relaxed)), (1, 1));
}
