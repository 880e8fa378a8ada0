//! Moves and integer instructions against the host's processor.

use super::*;

#[test]
fn moves() {
    check(
        both!["movaps" "movapd" "movdqa" "movups" "movupd" "movdqu" "movss" "movsd" "movq"
              "movddup" "movsldup" "movshdup"],
        Random::integers,
    );
    check(
        plain!["movd xmm0, eax" "movq xmm0, rax" "movd xmm0, dword ptr [rdi]"
               "movd eax, xmm0" "movq rax, xmm0" "movd dword ptr [rdi], xmm0"
               ".byte 0x66, 0x48, 0x0f, 0x6e, 0x07" ".byte 0x66, 0x48, 0x0f, 0x7e, 0x07"
               "movlps xmm0, [rdi]" "movhps xmm0, [rdi]" "movlpd xmm0, [rdi]" "movhpd xmm0, [rdi]"
               "movlhps xmm0, xmm1" "movhlps xmm0, xmm1" "lddqu xmm0, [rdi]" "movntdqa xmm0, [rdi]"
               "lddqu xmm0, [rdi + 5]" "movups xmm0, [rdi + 7]" "movdqu [rdi + 3], xmm0"
               "movaps [rdi], xmm0" "movapd [rdi], xmm0" "movdqa [rdi], xmm0" "movups [rdi], xmm0"
               "movupd [rdi], xmm0" "movss [rdi], xmm0" "movsd [rdi], xmm0" "movq [rdi], xmm0"
               "movlps [rdi], xmm0" "movhps [rdi], xmm0" "movlpd [rdi], xmm0" "movhpd [rdi], xmm0"
               "movntps [rdi], xmm0" "movntpd [rdi], xmm0" "movntdq [rdi], xmm0"
               "movnti [rdi], eax" "movnti [rdi], rax" "maskmovdqu xmm0, xmm1"
               ".byte 0x66, 0x0f, 0x29, 0xc1" ".byte 0xf3, 0x0f, 0x11, 0xc1"
               ".byte 0xf2, 0x0f, 0x11, 0xc1" ".byte 0x66, 0x0f, 0xd6, 0xc1"
               ".byte 0xf3, 0x0f, 0x7f, 0xc1" ".byte 0x0f, 0x11, 0xc1"
               "pmovmskb eax, xmm1" "movmskps eax, xmm1" "movmskpd eax, xmm1"
               ".byte 0x66, 0x48, 0x0f, 0xd7, 0xc1" ".byte 0x48, 0x0f, 0x50, 0xc1"
               ".byte 0x66, 0x48, 0x0f, 0x50, 0xc1"],
        Random::integers,
    );
}

#[test]
fn integer_arithmetic() {
    check(
        both!["paddb" "paddw" "paddd" "paddq" "paddsb" "paddsw" "paddusb" "paddusw"
              "psubb" "psubw" "psubd" "psubq" "psubsb" "psubsw" "psubusb" "psubusw"
              "pminub" "pminuw" "pminud" "pminsb" "pminsw" "pminsd"
              "pmaxub" "pmaxuw" "pmaxud" "pmaxsb" "pmaxsw" "pmaxsd" "pavgb" "pavgw"
              "pabsb" "pabsw" "pabsd" "psignb" "psignw" "psignd"
              "pmullw" "pmulld" "pmulhw" "pmulhuw" "pmulhrsw" "pmuludq" "pmuldq" "pmaddwd"
              "pmaddubsw" "pand" "pandn" "por" "pxor" "andps" "andpd" "andnps" "andnpd" "orps"
              "orpd" "xorps" "xorpd" "phaddw" "phaddsw" "phaddd" "phsubw" "phsubsw" "phsubd"
              "psadbw" "phminposuw"],
        Random::integers,
    );
    check(with_immediate!(["mpsadbw"], [0 1 2 3 4 5 6 7 255]), Random::integers);
}

#[test]
fn shifts() {
    check(both!["psrlw" "psrld" "psrlq" "psraw" "psrad" "psllw" "pslld" "psllq"], |random| {
        let count = random.below(70);
        if random.below(2) == 0 {
            random.integers() & !0xffff | u128::from(count)
        } else {
            count.into()
        }
    });
    macro_rules! by_immediate {
        ([$($name:literal)*], $imms:tt) => { [$(by_immediate!(@each $name, $imms)),*].concat() };
        (@each $name:literal, [$($imm:literal)*]) => { vec![$(case!($name, " xmm0, ", $imm)),*] };
    }
    check(
        by_immediate!(
            ["psrlw" "psrld" "psrlq" "psraw" "psrad" "psllw" "pslld" "psllq" "psrldq" "pslldq"],
            [0 1 3 7 8 15 16 17 31 32 33 63 64 128 255]
        ),
        Random::integers,
    );
}

#[test]
fn shuffles() {
    check(
        both!["pshufb" "punpcklbw" "punpcklwd" "punpckldq" "punpcklqdq" "punpckhbw" "punpckhwd"
              "punpckhdq" "punpckhqdq" "unpcklps" "unpcklpd" "unpckhps" "unpckhpd" "packsswb"
              "packuswb" "packssdw" "packusdw" "pmovsxbw" "pmovsxbd" "pmovsxbq" "pmovsxwd"
              "pmovsxwq" "pmovsxdq" "pmovzxbw" "pmovzxbd" "pmovzxbq" "pmovzxwd" "pmovzxwq"
              "pmovzxdq"],
        Random::integers,
    );
    check(
        plain!["pblendvb xmm1, xmm2, xmm0" "blendvps xmm1, xmm2, xmm0" "blendvpd xmm1, xmm2, xmm0"
               "pblendvb xmm1, [rdi], xmm0" "blendvps xmm1, [rdi], xmm0"
               "blendvpd xmm1, [rdi], xmm0"],
        Random::integers,
    );
    check(
        with_immediate!(
            ["pshufd" "pshuflw" "pshufhw" "shufps" "shufpd" "palignr" "blendps" "blendpd" "pblendw"
             "insertps"],
            [0 1 2 3 4 8 9 15 16 17 27 31 32 39 57 78 85 114 147 170 177 198 216 228 238 255]
        ),
        Random::integers,
    );
}

#[test]
fn inserts_and_extracts() {
    macro_rules! lanes {
        ([$($before:literal $after:literal)*], $imms:tt) => {
            [$(lanes!(@each $before $after, $imms)),*].concat()
        };
        (@each $before:literal $after:literal, [$($imm:literal)*]) => {
            vec![$(case!($before, $imm, $after)),*]
        };
    }
    check(
        lanes!(
            ["pinsrb xmm0, eax, " "" "pinsrb xmm0, byte ptr [rdi], " ""
             "pinsrw xmm0, eax, " "" "pinsrw xmm0, word ptr [rdi], " ""
             "pinsrd xmm0, eax, " "" "pinsrd xmm0, dword ptr [rdi], " ""
             "pinsrq xmm0, rax, " "" "pinsrq xmm0, qword ptr [rdi], " ""
             "pextrb eax, xmm1, " "" "pextrb byte ptr [rdi], xmm1, " ""
             "pextrw eax, xmm1, " "" "pextrw word ptr [rdi], xmm1, " ""
             ".byte 0x66, 0x0f, 0x3a, 0x15, 0xc8, " ""
             "pextrd eax, xmm1, " "" "pextrd dword ptr [rdi], xmm1, " ""
             "pextrq rax, xmm1, " "" "pextrq qword ptr [rdi], xmm1, " ""
             "extractps eax, xmm1, " "" "extractps dword ptr [rdi], xmm1, " ""],
            [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 100 255]
        ),
        Random::integers,
    );
}

#[test]
fn strings() {
    check(
        with_immediate!(
            ["pcmpistri" "pcmpistrm" "pcmpestri" "pcmpestrm"],
            [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
             16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
             48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
             64 65 68 69 72 73 76 77 80 85 90 95 112 117 122 127 255]
        ),
        Random::text,
    );
    macro_rules! wide {
        ($($imm:literal)*) => {
            [$(case!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1, ", $imm),
               case!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x60, 0xc1, ", $imm)),*]
        };
    }
    check(wide![0 1 4 8 9 12 24 56 72 121], Random::text);
}

#[test]
fn comparisons() {
    check(
        both!["pcmpeqb" "pcmpeqw" "pcmpeqd" "pcmpeqq" "pcmpgtb" "pcmpgtw" "pcmpgtd" "pcmpgtq"
              "ptest"],
        Random::integers,
    );
}
