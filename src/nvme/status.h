// NVMe completion status: type, code, and what the controller says about trying again.
// NVMe Base 2.1 §4.2.3 (Completion Queue Entry: Status Field).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nvmf::nvme {

/// Status Code Type and Status Code in one number, as nvme-cli prints them: SCT << 8 | SC.
enum class StatusCode : std::uint16_t {
  success = 0x000,
  invalid_opcode = 0x001,
  invalid_field = 0x002,
  command_id_conflict = 0x003,
  data_transfer_error = 0x004,
  aborted_power_loss = 0x005,
  internal_error = 0x006,
  abort_requested = 0x007,
  aborted_sq_deletion = 0x008,
  aborted_fused_failed = 0x009,
  aborted_fused_missing = 0x00a,
  invalid_namespace = 0x00b,
  command_sequence_error = 0x00c,
  invalid_sgl_segment = 0x00d,
  invalid_sgl_count = 0x00e,
  data_sgl_length_invalid = 0x00f,
  metadata_sgl_length_invalid = 0x010,
  sgl_type_invalid = 0x011,
  operation_denied = 0x015,
  sgl_offset_invalid = 0x016,
  host_id_inconsistent = 0x018,
  keep_alive_expired = 0x019,
  keep_alive_invalid = 0x01a,
  aborted_preempt = 0x01b,
  sanitize_failed = 0x01c,
  sanitize_in_progress = 0x01d,
  namespace_write_protected = 0x020,
  command_interrupted = 0x021,
  transient_transport_error = 0x022,
  admin_media_not_ready = 0x024,
  lba_out_of_range = 0x080,
  capacity_exceeded = 0x081,
  namespace_not_ready = 0x082,
  reservation_conflict = 0x083,
  format_in_progress = 0x084,
  // command specific
  invalid_cq = 0x100,
  invalid_queue_id = 0x101,
  invalid_queue_size = 0x102,
  abort_limit_exceeded = 0x103,
  aer_limit_exceeded = 0x105,
  invalid_log_page = 0x109,
  invalid_format = 0x10a,
  feature_not_saveable = 0x10d,
  feature_not_changeable = 0x10e,
  feature_not_namespace_specific = 0x10f,
  invalid_controller_id = 0x11f,
  // command specific, fabrics (Base 2.1 §4.2.3.2)
  connect_incompatible_format = 0x180,
  connect_controller_busy = 0x181,
  connect_invalid_parameters = 0x182,
  connect_restart_discovery = 0x183,
  connect_invalid_host = 0x184,
  log_restart_discovery = 0x190,
  authentication_required = 0x191,
  // media and data integrity
  write_fault = 0x280,
  unrecovered_read_error = 0x281,
  guard_check_error = 0x282,
  compare_failure = 0x285,
  access_denied = 0x286,
  deallocated_block = 0x287,
  // path related
  internal_path_error = 0x300,
  ana_persistent_loss = 0x301,
  ana_inaccessible = 0x302,
  ana_transition = 0x303,
  controller_path_error = 0x360,
  host_path_error = 0x370,
  aborted_by_host = 0x371,
};

struct Status {
  std::uint8_t sct = 0;
  std::uint8_t sc = 0;
  std::uint8_t crd = 0;  // Command Retry Delay, 1-based index of CRDT1..3, 0: none
  bool more = false;
  bool dnr = false;  // Do Not Retry

  constexpr Status() = default;
  constexpr Status(StatusCode code, bool do_not_retry = false)  // NOLINT: a code is a status
      : sct(static_cast<std::uint8_t>((static_cast<unsigned>(code) >> 8) & 7)),
        sc(static_cast<std::uint8_t>(static_cast<unsigned>(code) & 0xff)),
        dnr(do_not_retry) {}

  [[nodiscard]] constexpr bool ok() const { return sct == 0 && sc == 0; }
  [[nodiscard]] constexpr StatusCode code() const {
    return static_cast<StatusCode>(static_cast<unsigned>(sct) << 8 | sc);
  }
  /// The 16-bit field of CQE bytes 15:14 with the phase tag clear.
  [[nodiscard]] constexpr std::uint16_t encode() const {
    return static_cast<std::uint16_t>(sc << 1 | (sct & 7) << 9 | (crd & 3) << 12 | more << 14 |
                                      dnr << 15);
  }
  static constexpr Status decode(std::uint16_t field) {
    Status s;
    s.sc = static_cast<std::uint8_t>(field >> 1 & 0xff);
    s.sct = static_cast<std::uint8_t>(field >> 9 & 7);
    s.crd = static_cast<std::uint8_t>(field >> 12 & 3);
    s.more = (field >> 14 & 1) != 0;
    s.dnr = (field >> 15 & 1) != 0;
    return s;
  }
  friend constexpr bool operator==(const Status&, const Status&) = default;
};

/// What kind of command a status belongs to: command specific codes mean different things. fabrics
/// is for commands of opcode 7Fh only, also on the admin queue.
enum class StatusContext : std::uint8_t { admin, fabrics, nvm };

/// The specification's name of a status in words, such as "LBA Out of Range"; never empty.
std::string_view status_name(Status status, StatusContext context);

/// A sentence part for messages: name, numbers, DNR: "LBA Out of Range (0x080, do not retry)".
std::string describe(Status status, StatusContext context);

}  // namespace nvmf::nvme
