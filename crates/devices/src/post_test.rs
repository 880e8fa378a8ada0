use super::*;

#[test]
fn keeps_the_code_and_swallows_the_rest() {
    let mut post = PostPorts::new();
    post.port_write(0x80, &[0x42]);
    post.port_write(0xed, &[1, 2, 3, 4]);
    post.port_write(0x8e, &[5, 6, 7, 8]);
    assert_eq!(post.code(), 0x42);
    let mut data = [0; 4];
    post.port_read(0x8e, &mut data);
    assert_eq!(data, [5, 6, 0xff, 0xff]);
    let again = PostPorts::restore(post.save());
    assert_eq!(again.save(), post.save());
}
