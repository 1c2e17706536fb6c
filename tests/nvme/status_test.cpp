#include "nvme/status.h"

#include <gtest/gtest.h>

#include <string>

namespace nvmf::nvme {
namespace {

TEST(Status, NamesOfEachType) {
  using enum StatusContext;
  EXPECT_EQ(status_name(StatusCode::success, nvm), "Successful Completion");
  EXPECT_EQ(status_name(StatusCode::lba_out_of_range, nvm), "LBA Out of Range");
  EXPECT_EQ(status_name(StatusCode::keep_alive_expired, admin), "Keep Alive Timer Expired");
  EXPECT_EQ(status_name(StatusCode::invalid_log_page, admin), "Invalid Log Page");
  EXPECT_EQ(status_name(StatusCode::compare_failure, nvm), "Compare Failure");
  EXPECT_EQ(status_name(StatusCode::host_path_error, nvm), "Host Pathing Error");
  EXPECT_EQ(status_name(StatusCode::ana_inaccessible, nvm), "Asymmetric Access Inaccessible");
}

TEST(Status, CommandSpecificCodesDependOnTheCommand) {
  const Status status(StatusCode::connect_invalid_parameters);
  EXPECT_EQ(status_name(status, StatusContext::fabrics), "Connect Invalid Parameters");
  EXPECT_EQ(status_name(status, StatusContext::nvm), "Attempted Write to Read Only Range");
  EXPECT_EQ(status_name(StatusCode::authentication_required, StatusContext::admin),
            "Authentication Required");
}

// Base 2.1 §4.2.3.2: the figures of the codes from 80h on.
TEST(Status, CommandSpecificNames) {
  const auto name = [](unsigned sc, StatusContext context) {
    return status_name(static_cast<StatusCode>(0x100 | sc), context);
  };
  using enum StatusContext;
  EXPECT_EQ(name(0x80, fabrics), "Incompatible Format");
  EXPECT_EQ(name(0x81, fabrics), "Controller Busy");
  EXPECT_EQ(name(0x83, fabrics), "Connect Restart Discovery");
  EXPECT_EQ(name(0x84, fabrics), "Connect Invalid Host");
  EXPECT_EQ(name(0x85, fabrics), "Invalid Queue Type");
  EXPECT_EQ(name(0xb0, fabrics), "Transport Specific Status");
  EXPECT_EQ(name(0x82, admin), "Attempted Write to Read Only Range");  // Format NVM
  EXPECT_EQ(name(0x90, admin), "Discover Restart");                    // Get Log Page
  EXPECT_EQ(name(0x91, nvm), "Authentication Required");               // any command
  EXPECT_EQ(name(0x84, nvm), "Invalid Command ID");
  EXPECT_EQ(name(0x9c, nvm), "Successful Media Verification Read");
  EXPECT_EQ(name(0xb8, nvm), "Zoned Boundary Error");
  EXPECT_EQ(name(0x70, admin), "Directive Specific Status");
  EXPECT_EQ(name(0x3b, admin), "Controller Data Queue Full");
}

TEST(Status, EveryStatusHasAName) {
  for (unsigned sct = 0; sct < 8; ++sct) {
    for (unsigned sc = 0; sc < 256; ++sc) {
      const Status status(static_cast<StatusCode>(sct << 8 | sc));
      for (const auto context :
           {StatusContext::admin, StatusContext::fabrics, StatusContext::nvm}) {
        EXPECT_FALSE(status_name(status, context).empty()) << sct << "/" << sc;
      }
    }
  }
}

TEST(Status, EveryCodeOfOursIsKnown) {
  using enum StatusCode;
  const auto known = [](StatusCode code, StatusContext context) {
    const std::string name(status_name(code, context));
    EXPECT_EQ(name.find("Unknown"), std::string::npos) << static_cast<unsigned>(code);
  };
  for (const StatusCode code : {success,
                                invalid_opcode,
                                invalid_field,
                                command_id_conflict,
                                data_transfer_error,
                                aborted_power_loss,
                                internal_error,
                                abort_requested,
                                aborted_sq_deletion,
                                aborted_fused_failed,
                                aborted_fused_missing,
                                invalid_namespace,
                                command_sequence_error,
                                invalid_sgl_segment,
                                invalid_sgl_count,
                                data_sgl_length_invalid,
                                metadata_sgl_length_invalid,
                                sgl_type_invalid,
                                operation_denied,
                                sgl_offset_invalid,
                                host_id_inconsistent,
                                keep_alive_expired,
                                keep_alive_invalid,
                                aborted_preempt,
                                sanitize_failed,
                                sanitize_in_progress,
                                namespace_write_protected,
                                command_interrupted,
                                transient_transport_error,
                                admin_media_not_ready,
                                capacity_exceeded,
                                namespace_not_ready,
                                reservation_conflict,
                                format_in_progress,
                                invalid_cq,
                                invalid_queue_id,
                                invalid_queue_size,
                                abort_limit_exceeded,
                                aer_limit_exceeded,
                                invalid_format,
                                feature_not_saveable,
                                feature_not_changeable,
                                feature_not_namespace_specific,
                                invalid_controller_id,
                                write_fault,
                                unrecovered_read_error,
                                guard_check_error,
                                access_denied,
                                deallocated_block,
                                internal_path_error,
                                ana_persistent_loss,
                                ana_transition,
                                controller_path_error,
                                aborted_by_host}) {
    known(code, StatusContext::nvm);
  }
  for (const StatusCode code :
       {connect_incompatible_format, connect_controller_busy, connect_invalid_parameters,
        connect_restart_discovery, connect_invalid_host, log_restart_discovery,
        authentication_required}) {
    known(code, StatusContext::fabrics);
  }
}

TEST(Status, DescribeSaysAllThatTheFieldSays) {
  EXPECT_EQ(describe(Status(StatusCode::lba_out_of_range, true), StatusContext::nvm),
            "LBA Out of Range (0x080, do not retry)");
  Status status(StatusCode::namespace_not_ready);
  status.crd = 2;
  status.more = true;
  EXPECT_EQ(describe(status, StatusContext::nvm),
            "Namespace Not Ready (0x082, retry after CRDT2, more in the error log)");
}

// Bit by bit as the field lies in CQE bytes 15:14, the phase tag below.
TEST(Status, FieldBits) {
  Status status(StatusCode::host_path_error, true);
  EXPECT_EQ(status.encode(), 0x8000 | 3 << 9 | 0x70 << 1);
  status.crd = 3;
  status.more = true;
  EXPECT_EQ(status.encode(), 0xf000 | 3 << 9 | 0x70 << 1);
  for (unsigned field = 0; field < 0x10000; field += 2) {
    EXPECT_EQ(Status::decode(static_cast<std::uint16_t>(field)).encode(), field);
  }
}

}  // namespace
}  // namespace nvmf::nvme
