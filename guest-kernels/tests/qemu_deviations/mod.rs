//! Cases in which QEMU's translator deviates from the SDM, with the passage that settles what is right.

struct Deviation {
    /// The passage of the manual that QEMU does not follow.
    citation: &'static str,
    kernel: &'static str,
    /// The prefixes of the names of the cases.
    cases: &'static [&'static str],
}

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        citation: "SDM Vol. 2, INT1: raises #DB as a trap; QEMU: #UD",
        kernel: "exceptions",
        cases: &["db_int1"],
    },
    Deviation {
        citation: "SDM Vol. 2, LOCK: #UD with an instruction or operand form that cannot be locked, ahead of any other \
                   condition of the instruction",
        kernel: "exceptions",
        cases: &["ud_lock_mov", "ud_before_gp_privilege", "ud_lock_before_nm"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 2.5 Control Registers, CR0.EM: SSE instructions raise #UD, whatever TS",
        kernel: "exceptions",
        cases: &["ud_em_before_nm_ts"],
    },
    Deviation {
        citation: "SDM Vol. 3B, 17.3.1.1 Instruction-Breakpoint Exception Condition: RF is pushed as 1 by faults and by \
                   traps between iterations of a string instruction",
        kernel: "exceptions",
        cases: &["step_string_rf", "fault_pushes_rf"],
    },
    Deviation {
        citation: "SDM Vol. 3B, 17.2.4 Debug Control Register (DR7), general detect",
        kernel: "exceptions",
        cases: &[
            "db_general_detect",
            "db_general_detect_dr6",
            "gd_cleared_on_entry",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3A, 5.4.1 Null Segment Selector Checking",
        kernel: "exceptions",
        cases: &["gp_use_null_es"],
    },
    Deviation {
        citation: "SDM Vol. 2, LTR: #GP(0) when the operand is a null selector",
        kernel: "exceptions",
        cases: &["gp_ltr_null"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 6.13 Error Code: EXT is set for an exception during delivery of an earlier event",
        kernel: "exceptions",
        cases: &[
            "np_gate_exception",
            "np_exception_to_absent_code",
            "gp_exception_null_selector",
            "benign_then_np",
        ],
    },
    Deviation {
        citation: "SDM Vol. 2, CALL: #SS(new SS) when the inner stack segment is not present",
        kernel: "exceptions",
        cases: &["ss_stack_not_present"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 5.3 Limit Checking; QEMU checks no limit on data accesses",
        kernel: "exceptions",
        cases: &[
            "gp_limit_dword_across",
            "gp_limit_word_across",
            "gp_limit_byte_after",
            "gp_limit_write",
            "gp_limit_top",
            "ss_limit_by_ebp",
            "ss_override",
            "ss_fault_keeps_esp",
        ],
    },
    Deviation {
        citation: "SDM Vol. 1, 8.7 Handling x87 FPU Exceptions in Software: every waiting instruction checks; QEMU: fwait \
                   alone",
        kernel: "exceptions",
        cases: &["mf_at_next_waiting"],
    },
    Deviation {
        citation: "SDM Vol. 3A, Interrupt 19 - SIMD Floating-Point Exception, and LDMXCSR; QEMU 7.2 raises none",
        kernel: "exceptions",
        cases: &[
            "ud_simd_error_without_osxmmexcpt",
            "xm_divide_by_zero",
            "xm_keeps_destination",
            "xm_sets_flag",
            "gp_mxcsr_reserved",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3A, Interrupt 17 - Alignment Check Exception; QEMU 7.2 raises none",
        kernel: "exceptions",
        cases: &["ac_dword", "ac_word", "ac_qword"],
    },
    Deviation {
        citation: "SDM Vol. 2, MOV-Move to/from Control Registers: #GP(0) for NW without CD and for PG without PE",
        kernel: "paging",
        cases: &["gp_nw_without_cd", "cr0_unchanged", "gp_pg_without_pe"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 4.7 Page-Fault Exceptions, W/R: the access of a read-modify-write is a write; QEMU reads \
                   first",
        kernel: "paging",
        cases: &[
            "rights_modify_",
            "rights_user_modify_",
            "crossing_modify_fault",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3A, 4.7 Page-Fault Exceptions, RSVD: P is set too, since reserved bits are checked in present \
                   entries only",
        kernel: "paging",
        cases: &[
            "large_reserved_bit",
            "pae_reserved_bit",
            "pae_nx_reserved",
            "pae_large_reserved_bit",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3A, 4.4.1 PDPTE Registers: loaded and checked by MOV to CR3; QEMU walks the table in memory",
        kernel: "paging",
        cases: &["pdpte_needs_cr3_load", "gp_pdpte_reserved"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 5.3 Limit Checking and 5.5 Type Checking; QEMU checks neither on data accesses",
        kernel: "segmentation",
        cases: &[
            "gp_above_limit",
            "gp_expand_down_below",
            "gp_expand_down_across",
            "gp_expand_down_zero",
            "gp_expand_down16_above",
            "gp_expand_down16_across",
            "gp_granular_limit",
            "gp_read_only_write",
            "gp_read_only_modify",
            "gp_readable_code_write",
            "gp_cs_override_write",
            "gp_execute_only_read",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3B, 20.1.1 Address Translation in Real-Address Mode: offsets beyond 0xffff raise #GP or #SS; \
                   QEMU checks no limit",
        kernel: "modes",
        cases: &["v86_gp_above_64k", "v86_gp_word_at_limit"],
    },
    Deviation {
        citation: "SDM Vol. 3A, 5.8.4 Accessing a Code Segment Through a Call Gate: a conforming target changes neither \
                   CPL nor stack",
        kernel: "segmentation",
        cases: &[
            "gate_to_conforming_keeps_cpl",
            "gate_to_conforming_keeps_stack",
        ],
    },
    Deviation {
        citation: "SDM Vol. 3A, 7.3 Task Switching: an exception after the switch is taken before the new task's first \
                   instruction",
        kernel: "segmentation",
        cases: &["ts_bad_ds_eip"],
    },
    Deviation {
        citation: "8254 datasheet (231164), Mode 0: after the control word OUT is low until a count has been written and \
                   counted; QEMU: counts the old count on, which ends meanwhile on a slow host",
        kernel: "interrupts",
        cases: &["irr_clear_after_init"],
    },
    Deviation {
        citation: "PC16550D, 8.8 MODEM Control Register: in loopback the modem's interrupts are operational, their sources are \
                   the outputs; QEMU: no deltas in loopback",
        kernel: "registers",
        cases: &[
            "modem_deltas_on",
            "modem_deltas_ri_off",
            "modem_deltas_dsr",
            "modem_interrupt",
        ],
    },
    Deviation {
        citation: "IBM PS/2 Hardware Interface Technical Reference, Status Register, bit 3: 0 after data was written; QEMU: \
                   stays 1",
        kernel: "registers",
        cases: &["data_was_written"],
    },
    Deviation {
        citation: "MC146818A, Register C, PF: set by the periodic interrupt whatever PIE is; QEMU: only while PIE is on",
        kernel: "registers",
        cases: &["period_not_enabled"],
    },
];

/// The passage of the manual, if `case` of `kernel` is known to fail on QEMU.
pub fn citation(kernel: &str, case: &str) -> Option<&'static str> {
    DEVIATIONS
        .iter()
        .find(|d| d.kernel == kernel && d.cases.iter().any(|c| case.starts_with(c)))
        .map(|d| d.citation)
}

/// The kernels that have a deviation.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    DEVIATIONS.iter().map(|d| d.kernel)
}

/// Every listed prefix with its kernel.
pub fn cases() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEVIATIONS
        .iter()
        .flat_map(|d| d.cases.iter().map(|c| (d.kernel, *c)))
}
