#include "nvme/admin.h"

#include <gtest/gtest.h>

#include <array>

#include "nvme/bytes.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;

std::vector<std::byte> bytes_of(const Sqe& sqe) {
  std::array<std::byte, kSqeBytes> out{};
  sqe.encode(out);
  return {out.begin(), out.end()};
}

TEST(Admin, IdentifyBytes) {
  const IdentifyCommand command{.cns = Cns::csi_namespace,
                                .nsid = 5,
                                .cntid = 0x0201,
                                .csi = Csi::zoned,
                                .cns_specific = 0x0403,
                                .uuid_index = 0x7f};
  const Bytes golden = Bytes(64)
                           .put(0, {0x06})
                           .put(4, {5})
                           .put(40, {0x05, 0, 0x01, 0x02, 0x03, 0x04, 0, 0x02})
                           .put(56, {0x7f});
  EXPECT_EQ(bytes_of(command.to_sqe()), golden.vector());
  EXPECT_EQ(IdentifyCommand::from_sqe(Sqe::decode(golden.span().first<64>())), command);
}

TEST(Admin, FeatureBytes) {
  EXPECT_EQ(bytes_of(set_queue_count(4)),
            Bytes(64).put(0, {0x09}).put(40, {0x07, 0, 0, 0, 3, 0, 3, 0}).vector());
  EXPECT_EQ(bytes_of(set_features(Feature::timestamp, 1, 2, true)),
            Bytes(64).put(0, {0x09}).put(4, {2}).put(40, {0x0e, 0, 0, 0x80, 1}).vector());
  EXPECT_EQ(bytes_of(get_features(Feature::host_id, 0, 1, FeatureSelect::supported)),
            Bytes(64).put(0, {0x0a}).put(40, {0x81, 0x03, 0, 0, 1}).vector());
  EXPECT_EQ(set_async_events(kOaesNamespaceAttributes).cdw11, 0x100u);
  EXPECT_EQ(set_keep_alive(5000).cdw11, 5000u);
}

TEST(Admin, FeatureParsing) {
  EXPECT_EQ(
      FeatureCommand::from_sqe(get_features(Feature::host_id, 3, 4, FeatureSelect::saved)),
      (FeatureCommand{
          .feature = Feature::host_id, .select = FeatureSelect::saved, .nsid = 3, .cdw11 = 4}));
  EXPECT_TRUE(FeatureCommand::from_sqe(set_features(Feature::apst, 0, 0, true)).save);
  EXPECT_EQ(QueueCount::decode(0x00030007), (QueueCount{.submission = 8, .completion = 4}));
}

TEST(Admin, OtherCommands) {
  EXPECT_EQ(bytes_of(keep_alive()), Bytes(64).put(0, {0x18}).vector());
  EXPECT_EQ(bytes_of(async_event_request()), Bytes(64).put(0, {0x0c}).vector());
  EXPECT_EQ(bytes_of(abort_command(2, 0x1234)),
            Bytes(64).put(0, {0x08}).put(40, {2, 0, 0x34, 0x12}).vector());
  EXPECT_EQ(AbortCommand::from_sqe(abort_command(2, 0x1234)).cid, 0x1234);
}

TEST(Admin, HostBehavior) {
  const Bytes golden = Bytes(512).put(0, {1, 0, 1});
  const HostBehavior behavior = HostBehavior::decode(golden.span());
  EXPECT_EQ(behavior, (HostBehavior{.acre = true, .lbafee = true}));
  EXPECT_EQ(encoded<512>(behavior), golden.vector());
}

TEST(Nvm, BlockCommandBytes) {
  EXPECT_EQ(bytes_of(write_command(1, 0x1122334455667788, 65536, kCdw12Fua)),
            Bytes(64)
                .put(0, {0x01})
                .put(4, {1})
                .put(40, {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff, 0, 0x40})
                .vector());
  const Sqe read = read_command(9, 7, 1);
  EXPECT_EQ(read.opcode, 0x02);
  EXPECT_EQ(read.cdw12, 0u);
  EXPECT_EQ(read.blocks(), 1u);
  EXPECT_EQ(read.slba(), 7u);
  EXPECT_EQ(compare_command(1, 0, 1).opcode, 0x05);
  EXPECT_EQ(write_zeroes_command(1, 0, 2, kCdw12Deac).cdw12, 0x02000001u);
  EXPECT_EQ(bytes_of(flush_command(kNsidAll)), Bytes(64).put(4, {0xff, 0xff, 0xff, 0xff}).vector());
  EXPECT_DEATH(static_cast<void>(read_command(1, 0, 0)), "blocks");
  EXPECT_DEATH(static_cast<void>(read_command(1, 0, 65537)), "blocks");
}

TEST(Nvm, DatasetManagement) {
  EXPECT_EQ(bytes_of(dsm_command(1, 256)),
            Bytes(64).put(0, {0x09}).put(4, {1}).put(40, {255, 0, 0, 0, 4}).vector());
  EXPECT_EQ(dsm_ranges(dsm_command(1, 256)), 256u);
  const std::array<DsmRange, 2> ranges = {DsmRange{.blocks = 0x04030201, .lba = 0x1122334455667788},
                                          DsmRange{.attributes = 1, .blocks = 8, .lba = 16}};
  const Bytes golden = Bytes(32)
                           .put(4, {1, 2, 3, 4, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11})
                           .put(16, {1, 0, 0, 0, 8, 0, 0, 0, 16});
  EXPECT_EQ(encode_dsm_ranges(ranges), golden.vector());
  const auto decoded = decode_dsm_ranges(golden.span());
  ASSERT_EQ(decoded.size(), 2u);
  EXPECT_EQ(decoded[0], ranges[0]);
  EXPECT_EQ(decoded[1], ranges[1]);
  EXPECT_EQ(decode_dsm_ranges(golden.span().first(31)).size(), 1u);
}

TEST(AsyncEvent, BitsAndWords) {
  const AsyncEvent changed = AsyncEvent::decode(0x00040002);
  EXPECT_EQ(
      changed,
      (AsyncEvent{.type = AsyncEventType::notice, .info = kNoticeNamespaceChanged, .log_page = 4}));
  EXPECT_EQ(changed.describe(), "Attached Namespace Attribute Changed (notice, log page 0x04)");
  EXPECT_EQ(AsyncEvent::decode(0x0070f002).describe(),
            "Discovery Log Page Change (notice, log page 0x70)");
  EXPECT_EQ(AsyncEvent::decode(0x00020101).describe(),
            "Temperature Threshold (health, log page 0x02)");
  EXPECT_EQ(AsyncEvent::decode(0x0000f302).describe(),
            "Pull Model DDC Request (notice, log page 0x00)");
  EXPECT_EQ(AsyncEvent::decode(0x00000003).describe(),
            "NVM Subsystem Normal Shutdown (immediate, log page 0x00)");
  EXPECT_EQ(AsyncEvent::decode(0x00000103).describe(),
            "Temperature Threshold Hysteresis Recovery (immediate, log page 0x00)");
  EXPECT_EQ(AsyncEvent::decode(0x00000104).describe(),
            "Controller Data Queue Full Error (one-shot, log page 0x00)");
  EXPECT_EQ(AsyncEvent::decode(0x00810106).describe(),
            "Sanitize Operation Completed (I/O command specific, log page 0x81)");
  for (std::uint32_t dw0 = 0; dw0 < 8; ++dw0) {
    EXPECT_FALSE(AsyncEvent::decode(dw0).describe().empty());
    EXPECT_EQ(AsyncEvent::decode(dw0 | 0x00a5c300).encode(), dw0 | 0x00a5c300);
  }
}

TEST(OpcodeName, DependsOnTheQueue) {
  EXPECT_EQ(opcode_name(read_command(1, 0, 1), false), "Read");
  EXPECT_EQ(opcode_name(get_features(Feature::host_id), true), "Get Features");
  Sqe sqe;
  sqe.opcode = 0x02;
  EXPECT_EQ(opcode_name(sqe, true), "Get Log Page");
  sqe.opcode = 0xc1;
  EXPECT_EQ(opcode_name(sqe, true), "opcode 0xc1");
  sqe.opcode = kFabricsOpcode;
  sqe.nsid = 1;
  EXPECT_EQ(opcode_name(sqe, true), "Connect");
  sqe.nsid = 0x77;
  EXPECT_EQ(opcode_name(sqe, false), "fabrics command type 0x77");
}

}  // namespace
}  // namespace nvmf::nvme
