//! Guests that are not run as a processor of `riad-v1` would run them, with the reason.

use riad_cpu_kvm::Capabilities;

/// A guest, as `module::test`.
type Name = &'static str;

/// Guests that need a feature that not every host has (the names of [`Capabilities::lacking`]).
const NEEDS: &[(&str, &[Name])] = &[
    (
        "PCID",
        &[
            "tlb::address_spaces_do_not_see_each_others_pages",
            "tlb::four_thousand_flushes_leave_no_old_translation_alive",
            "tlb::invpcid_forgets_an_address_a_space_or_everything",
            "tlb::invpcid_refuses_what_it_does_not_know",
            "tlb::loading_cr3_without_bit_63_forgets_that_space",
            "tlb::many_address_spaces_stay_apart",
        ],
    ),
    (
        "INVPCID",
        &[
            "tlb::invpcid_forgets_an_address_a_space_or_everything",
            "tlb::invpcid_refuses_what_it_does_not_know",
            "tlb::loading_cr3_without_bit_63_forgets_that_space",
        ],
    ),
    (
        "1 GiB pages",
        &[
            "paging::a_large_page_has_its_dirty_bit_in_its_own_entry",
            "paging::four_level_paging_has_pages_of_4k_2m_and_1g",
        ],
    ),
    ("RDTSCP", &["identity::rdtscp_tells_tsc_aux_and_tsd_keeps_level_3_out"]),
    ("FSGSBASE", &["calls::base_instructions_need_cr4_and_canonical_values"]),
    ("UMIP", &["exceptions::umip_hides_the_tables_from_level_3"]),
    (
        "SMAP",
        &[
            "paging::smap_stops_implicit_accesses_even_with_ac",
            "paging::smap_stops_level_0_from_touching_user_pages_unless_ac_is_set",
        ],
    ),
    (
        "SMEP",
        &[
            "paging::smep_stops_level_0_from_running_user_pages",
            "paging::the_fetch_bit_is_told_only_with_nxe_or_smep",
        ],
    ),
    ("CMPXCHG16B", &["locks::cmpxchg16b_adds_to_sixteen_bytes_at_once"]),
    ("XSAVE", &["identity::cpuid_shows_osxsave_and_the_apic_as_they_are"]),
    ("x2APIC", &["interrupts::x2apic_registers_are_msrs_and_there_is_a_self_ipi"]),
];

/// Guests that a driver runs wrongly, for these reasons.
type Differences = &'static [(&'static str, &'static [Name])];

/// `kvm_pvm` runs level 3 on the processor, and emulates level 0 by batches of instructions, with
/// shortcuts. What is here was seen on Linux 6.18.
const PVM: Differences = &[
    (
        "interrupts and NMIs are looked for between batches of instructions, and not before the \
         instruction that lets them in",
        &[
            "interrupts::a_masked_lint0_keeps_the_8259_out_until_it_is_unmasked",
            "interrupts::an_iret_that_faults_unblocks_nmis",
            "interrupts::an_nmi_comes_whatever_if_says_and_others_wait_for_iret",
            "interrupts::lowering_the_task_priority_lets_interrupts_in_at_once",
            "interrupts::mov_ss_and_pop_ss_hold_interrupts_back_for_one_instruction",
            "interrupts::mov_ss_holds_nmis_back_and_sti_does_not",
            "interrupts::only_a_higher_class_interrupts_a_handler_before_its_end",
            "interrupts::popf_and_iret_let_interrupts_in_at_once",
            "interrupts::sti_holds_interrupts_back_for_one_instruction",
            "interrupts::x2apic_registers_are_msrs_and_there_is_a_self_ipi",
        ],
    ),
    (
        "the local APIC's page never shows an interrupt as in service, and the end of one is not told",
        &[
            "interrupts::an_interrupt_comes_before_the_next_instruction_when_if_is_set_and_waits_otherwise",
            "interrupts::the_end_of_a_level_triggered_interrupt_is_announced",
        ],
    ),
    (
        "CPUID shows the host's features at level 0, whatever KVM_SET_CPUID2 was given",
        &[
            "identity::features_that_cpuid_hides_do_not_exist",
            "identity::lzcnt_and_tzcnt_are_bsr_and_bsf_where_they_do_not_exist",
        ],
    ),
    (
        "the time stamp counter is the host's: an offset is taken and has no effect",
        &["identity::the_time_stamp_counter_moves_with_guest_time_and_can_be_set"],
    ),
    (
        "model-specific registers take what a processor refuses",
        &["identity::registers_refuse_values_they_cannot_hold"],
    ),
    (
        "SYSCALL and SYSRET leave the privilege level as it was for kernels that do not speak the \
         driver's own protocol",
        &[
            "calls::syscall_does_not_exist_without_sce_or_outside_of_64_bit_mode",
            "calls::syscall_saves_rip_and_flags_in_registers_and_masks_flags",
            "calls::sysret_goes_back_to_64_bit_or_32_bit_code",
            "calls::sysret_to_a_non_canonical_address_faults_at_level_0",
            "debug::a_kernel_that_masks_tf_is_not_stepped_into_by_syscall",
            "debug::sysret_with_tf_traps_at_once",
        ],
    ),
    (
        "SYSENTER and SYSEXIT do not exist",
        &[
            "calls::sysenter_and_sysexit_take_everything_from_registers",
            "calls::sysenter_without_a_selector_and_sysexit_at_level_3_fault",
        ],
    ),
    (
        "call gates do not exist",
        &[
            "calls::a_call_gate_checks_its_own_level_and_its_target",
            "calls::a_call_gate_of_long_mode_pushes_the_old_stack_and_comes_back_with_retf",
            "calls::a_call_gate_to_an_inner_level_switches_stacks_and_copies_parameters",
        ],
    ),
    (
        "exceptions are delivered without the checks that a processor makes of gate, stack and task \
         state, and faults on the way all end in a double fault",
        &[
            "exceptions::a_16_bit_gate_pushes_a_16_bit_frame",
            "exceptions::a_bad_inner_stack_is_an_invalid_task_state_naming_the_stack",
            "exceptions::a_conforming_handler_runs_at_the_interrupted_level",
            "exceptions::a_fault_after_a_benign_exception_is_delivered_by_itself",
            "exceptions::a_fault_while_delivering_a_double_fault_shuts_the_processor_down",
            "exceptions::a_gate_to_a_bad_code_segment_names_the_segment",
            "exceptions::a_long_gate_to_a_non_canonical_handler",
            "exceptions::a_page_fault_after_a_contributory_fault_is_delivered_by_itself",
            "exceptions::a_page_fault_while_delivering_a_page_fault_is_a_double_fault_and_cr2_is_the_second",
            "exceptions::a_task_state_too_short_for_the_stack_is_an_invalid_task_state",
            "exceptions::an_inner_stack_without_room_is_a_stack_fault_naming_it",
            "exceptions::software_needs_a_gate_of_its_own_level",
            "exceptions::umip_hides_the_tables_from_level_3",
            "modes::control_registers_refuse_combinations",
            "modes::long_mode_cannot_be_entered_without_pae_or_from_a_64_bit_segment",
            "segments::system_descriptors_of_long_mode_must_lie_within_the_table_whole",
        ],
    ),
    (
        "INT 0x80 at level 3 is taken by the host",
        &["exceptions::iret_to_compatibility_mode_and_an_interrupt_back"],
    ),
    (
        "IRET and gates handle AC, null segments and bad frames in their own way",
        &[
            "exceptions::alignment_is_checked_at_level_3_when_am_and_ac_say_so",
            "exceptions::interrupt_gates_clear_if_and_trap_gates_do_not",
            "exceptions::iret_to_a_bad_frame_faults_with_the_selector_at_the_iret",
            "exceptions::iretq_goes_back_to_level_3_with_its_flags_and_stack",
        ],
    ),
    (
        "level 3 has no ports, whatever the bitmap in the task state says",
        &[
            "exceptions::the_io_bitmap_lets_level_3_use_single_ports",
            "paging::level_3_writes_need_the_writable_bit_at_every_level",
        ],
    ),
    (
        "there is no paging but long mode's",
        &[
            "paging::loading_page_directory_pointers_with_reserved_bits_is_a_general_protection_fault",
            "paging::narrow_large_pages_need_pse_and_have_one_reserved_bit",
            "paging::narrow_paging_has_pages_of_4k_and_4m_with_accessed_and_dirty_bits",
            "paging::pae_entries_have_more_reserved_bits",
            "paging::pae_paging_has_pages_of_4k_and_2m_and_execute_disable",
            "paging::pse_36_reaches_above_4g",
        ],
    ),
    (
        "an access to two pages is made of two, and one to a non-canonical address is a page fault",
        &[
            "paging::a_write_whose_second_page_faults_writes_nothing",
            "paging::an_operand_that_ends_beyond_the_canonical_half_faults",
        ],
    ),
    (
        "limits of code segments are not looked at",
        &[
            "modes::real_mode_segments_end_at_64k",
            "segments::code_beyond_its_limit_faults_before_the_instruction",
            "segments::code_that_was_cached_under_a_larger_limit_obeys_a_smaller_one",
        ],
    ),
    (
        "LAR, LSL, VERR and VERW see the host's descriptors at level 3",
        &[
            "segments::lar_and_lsl_tell_of_segments_that_may_be_seen",
            "segments::verr_and_verw_say_whether_an_access_would_do",
        ],
    ),
    (
        "breakpoints on data and ports are not looked for, and traps come late",
        &[
            "debug::a_data_breakpoint_traps_after_the_access",
            "debug::a_repeated_string_instruction_traps_after_every_iteration",
            "debug::data_breakpoints_see_string_instructions_and_the_stack",
            "debug::general_detect_guards_the_debug_registers_and_is_off_in_the_handler",
            "debug::ins_and_outs_trap_after_every_iteration",
            "debug::io_breakpoints_need_cr4_de",
            "debug::mov_ss_holds_the_trap_back_for_an_instruction_and_sti_does_not",
        ],
    ),
    (
        "virtual 8086 mode is not all there",
        &[
            "v86::an_exception_leaves_virtual_8086_mode_with_all_segments_pushed_and_null",
            "v86::an_interrupt_through_a_gate_to_another_level_is_refused",
            "v86::int3_and_into_are_not_sensitive",
            "v86::iret_enters_virtual_8086_mode_with_all_segments",
            "v86::popf_in_virtual_8086_mode_keeps_iopl_and_vm",
            "v86::ports_ask_the_bitmap_whatever_iopl_is",
            "v86::protected_mode_instructions_do_not_exist",
            "v86::segments_are_16_times_their_selector_and_64k_long",
            "v86::sensitive_instructions_need_iopl_3",
            "v86::there_and_back_again",
        ],
    ),
    (
        "locked operations of 16 bytes, and those across a cache line, are not always atomic",
        &[
            "locks::cmpxchg16b_adds_to_sixteen_bytes_at_once",
            "locks::locks_hold_wherever_the_operand_lies",
        ],
    ),
    (
        "an emulated instruction takes microseconds, so that these millions take too long",
        &["hot::code_without_end_fits_the_least_cache"],
    ),
];

/// What is known of a driver. Of one that nobody ran, nothing: it has to pass.
fn known(kvm: &Capabilities) -> Differences {
    match kvm.driver.as_deref() {
        Some("kvm_pvm") => PVM,
        _ => &[],
    }
}

/// The reason why this guest is different under this driver, if it is.
pub(crate) fn of(kvm: &Capabilities, guest: &str) -> Option<&'static str> {
    let listed = known(kvm).iter().find(|(_, guests)| guests.contains(&guest));
    listed.map(|(reason, _)| *reason)
}

/// How many guests are different.
pub(crate) fn count(kvm: &Capabilities) -> usize {
    known(kvm).iter().map(|(_, guests)| guests.len()).sum()
}

/// A feature that this guest needs and this host lacks.
pub(crate) fn lacks(kvm: &Capabilities, guest: &str) -> Option<&'static str> {
    let needed = NEEDS.iter().filter(|(_, guests)| guests.contains(&guest));
    needed.map(|(feature, _)| *feature).find(|feature| kvm.lacking.contains(feature))
}
