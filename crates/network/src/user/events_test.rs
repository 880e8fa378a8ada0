use super::*;

#[test]
fn refusals_are_told_a_few_at_a_time_and_the_rest_counted() {
    let told = Arc::new(Told::default());
    let mut teller = Teller::new(Arc::clone(&told));
    let refusal = Event::NameRefused { name: "example.com".to_owned() };
    for _ in 0..1000 {
        teller.tell_refusal(Duration::from_secs(5), refusal.clone());
    }
    teller.tell_refusal(Duration::from_secs(6), refusal.clone());
    let mut events = Vec::new();
    while let Some(event) = told.next(Duration::ZERO) {
        events.push(event);
    }
    assert_eq!(events.len(), 12);
    assert_eq!(events[10], Event::Suppressed { count: 990 });
}

#[test]
fn events_that_nobody_reads_make_room_for_newer_ones() {
    let told = Told::default();
    for id in 0..1000 {
        told.push(Event::ForwardAdded { id });
    }
    assert_eq!(told.next(Duration::ZERO), Some(Event::ForwardAdded { id: 1000 - KEPT as u32 }));
}
