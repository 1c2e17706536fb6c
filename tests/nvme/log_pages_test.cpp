#include "nvme/log_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "nvme/bytes.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;
using test::random_bytes;
using ::testing::ElementsAre;

TEST(GetLogPage, Bytes) {
  const GetLogPage command{.page = LogPage::discovery,
                           .nsid = 0x01020304,
                           .length_bytes = (std::uint64_t{0x00030002} + 1) * 4,
                           .offset_bytes = 0x0000000500000400,
                           .retain_event = true,
                           .lsp = 0x55,
                           .lsi = 0x0706,
                           .csi = 9,
                           .index_offset = true,
                           .uuid_index = 0x11};
  const auto golden = test::Bytes(64)
                          .put(0, {0x02})
                          .put(4, {4, 3, 2, 1})
                          .put(40, {0x70, 0xd5, 2, 0, 3, 0, 6, 7, 0, 4, 0, 0, 5, 0, 0, 0})
                          .put(56, {0x11, 0, 0x80, 9});
  EXPECT_EQ(encoded<64>(command.to_sqe()), golden.vector());
  EXPECT_EQ(GetLogPage::from_sqe(Sqe::decode(golden.span().first<64>())), command);
  EXPECT_DEATH(static_cast<void>(GetLogPage{.length_bytes = 6}.to_sqe()), "length_bytes");
  EXPECT_DEATH(static_cast<void>(GetLogPage{.length_bytes = 8, .offset_bytes = 2}.to_sqe()),
               "offset_bytes");
}

TEST(GetLogPage, LongestLength) {
  const GetLogPage command{.length_bytes = std::uint64_t{4} << 32};
  EXPECT_EQ(GetLogPage::from_sqe(command.to_sqe()).length_bytes, std::uint64_t{4} << 32);
}

TEST(ErrorEntry, GoldenBytesBothWays) {
  const Bytes golden = Bytes(64)
                           .put(0, {1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 3, 0, 0x00, 0x81, 5, 0})
                           .put(16, {6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 3, 1, 0x7f, 9})
                           .put(40, {10, 0})
                           .put(63, {1});
  const auto entry = ErrorEntry::decode(golden.span());
  EXPECT_EQ(entry, (ErrorEntry{.error_count = 0x0100000000000001,
                               .sqid = 2,
                               .cmdid = 3,
                               .status_field = 0x8100,
                               .parm_error_location = 5,
                               .lba = 6,
                               .nsid = 7,
                               .vs = 8,
                               .trtype = 3,
                               .csi = 1,
                               .opcode = 0x7f,
                               .cs = 9,
                               .trtype_spec_info = 10,
                               .log_page_version = 1}));
  EXPECT_EQ(entry.status(), Status(StatusCode::lba_out_of_range, true));
  EXPECT_EQ(encoded<64>(entry), golden.vector());
}

TEST(SmartLog, GoldenBytesBothWays) {
  Bytes golden = Bytes(512).put(0, {1, 0x2c, 0x01, 90, 10, 3, 4});
  for (int i = 0; i < 10; ++i) golden.put(static_cast<std::size_t>(32 + 16 * i), {i + 1});
  golden.put(40, {0xff})
      .put(192, {1, 0, 0, 0, 2, 0, 0, 0, 0x2d, 0x01})
      .put(214, {0x2e, 0x01, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0});
  const auto log = SmartLog::decode(golden.span());
  EXPECT_EQ(log.critical_warning, 1);
  EXPECT_EQ(log.composite_temperature, 300);
  EXPECT_EQ(log.avail_spare, 90);
  EXPECT_EQ(log.spare_thresh, 10);
  EXPECT_EQ(log.percent_used, 3);
  EXPECT_EQ(log.endurance_group_critical_warning, 4);
  EXPECT_EQ(log.data_units_read, (Uint128{.low = 1, .high = 0xff}));
  EXPECT_THAT((std::array{log.data_units_written.low, log.host_read_commands.low,
                          log.host_write_commands.low, log.controller_busy_time.low,
                          log.power_cycles.low, log.power_on_hours.low, log.unsafe_shutdowns.low,
                          log.media_errors.low, log.num_err_log_entries.low}),
              ElementsAre(2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_EQ(log.warning_temp_time, 1u);
  EXPECT_EQ(log.critical_comp_time, 2u);
  EXPECT_EQ(log.temp_sensor[0], 301);
  EXPECT_EQ(log.temp_sensor[7], 302);
  EXPECT_THAT(log.thm_temp_trans_count, ElementsAre(3, 4));
  EXPECT_THAT(log.thm_temp_total_time, ElementsAre(5, 6));
  EXPECT_EQ(encoded<512>(log), golden.vector());
}

TEST(FirmwareSlots, GoldenBytesBothWays) {
  const Bytes golden =
      Bytes(512).put(0, {0x21}).text(8, 8, "1.0", ' ').text(56, 8, "12345678", ' ');
  const auto log = FirmwareSlots::decode(golden.span());
  EXPECT_EQ(log.afi, 0x21);
  EXPECT_EQ(log.frs[0], "1.0");
  EXPECT_EQ(log.frs[1], "");
  EXPECT_EQ(log.frs[6], "12345678");
  EXPECT_EQ(encoded<512>(log), golden.vector());
}

TEST(ChangedNamespaces, ListAndOverflow) {
  const Bytes golden = Bytes(4096).put(0, {1, 0, 0, 0, 5});
  const auto log = ChangedNamespaces::decode(golden.span());
  EXPECT_FALSE(log.overflow);
  EXPECT_THAT(log.nsids, ElementsAre(1, 5));
  EXPECT_EQ(encoded<4096>(log), golden.vector());

  const Bytes overflow = Bytes(4096).put(0, {0xff, 0xff, 0xff, 0xff});
  EXPECT_TRUE(ChangedNamespaces::decode(overflow.span()).overflow);
  EXPECT_EQ(encoded<4096>(ChangedNamespaces{.overflow = true, .nsids = {}}), overflow.vector());
  EXPECT_EQ(encoded<4096>(
                ChangedNamespaces{.overflow = false, .nsids = std::vector<std::uint32_t>(1025, 1)}),
            overflow.vector());
}

TEST(EffectsLog, GoldenBytesBothWays) {
  const Bytes golden = Bytes(4096).put(0x06 * 4, {1}).put(1023, {2}).put(1024 + 4, {3});
  const auto log = EffectsLog::decode(golden.span());
  EXPECT_EQ(log.acs[0x06], kEffectSupported);
  EXPECT_EQ(log.acs[255], 0x02000000u);
  EXPECT_EQ(log.iocs[1], kEffectSupported | kEffectLbcc);
  EXPECT_EQ(encoded<4096>(log), golden.vector());
}

TEST(SupportedLogPages, GoldenBytesBothWays) {
  const Bytes golden = Bytes(1024).put(0x02 * 4, {1}).put(0x70 * 4, {1, 0, 2, 0});
  const auto log = SupportedLogPages::decode(golden.span());
  EXPECT_TRUE(log.supports(LogPage::smart));
  EXPECT_TRUE(log.supports(LogPage::discovery));
  EXPECT_FALSE(log.supports(LogPage::ana));
  EXPECT_EQ(encoded<1024>(log), golden.vector());
}

TEST(Discovery, HeaderBothWays) {
  const Bytes golden = Bytes(1024).put(0, {7, 0, 0, 0, 0, 0, 0, 1, 2}).put(16, {3, 0});
  const auto header = DiscoveryHeader::decode(golden.span().first(18));
  EXPECT_EQ(header, (DiscoveryHeader{.genctr = 0x0100000000000007, .numrec = 2, .recfmt = 3}));
  EXPECT_EQ(encoded<1024>(header), golden.vector());
}

TEST(Discovery, EntryBothWays) {
  const Bytes golden = Bytes(1024)
                           .put(0, {3, 2, 2, 4, 1, 0, 0xff, 0xff, 32, 0, 3, 0})
                           .text(32, 32, "4420", ' ')
                           .text(256, 256, "nqn.2024-01.org.example:disk ", '\0')
                           .text(512, 256, "fe80::1", ' ')
                           .put(768, {2});
  const auto entry = DiscoveryEntry::decode(golden.span());
  EXPECT_EQ(entry, (DiscoveryEntry{.trtype = TransportType::tcp,
                                   .adrfam = AddressFamily::ipv6,
                                   .subtype = SubsystemType::nvme,
                                   .treq = kTreqSqFlowControlOff,
                                   .portid = 1,
                                   .cntlid = 0xffff,
                                   .asqsz = 32,
                                   .eflags = kEflagsDuplicate | kEflagsPersistent,
                                   .trsvcid = "4420",
                                   .subnqn = "nqn.2024-01.org.example:disk ",  // NUL ends it
                                   .traddr = "fe80::1",
                                   .sectype = kSectypeTls13}));
  EXPECT_EQ(encoded<1024>(entry), golden.vector());
  // Linux pads with NULs.
  EXPECT_EQ(DiscoveryEntry::decode(Bytes(1024).text(32, 32, "8009", '\0').span()).trsvcid, "8009");
}

// Each as nvme-cli 2.3 prints it, which knows no name for 0 nor for a loop address.
TEST(Discovery, Names) {
  EXPECT_EQ(transport_name(static_cast<TransportType>(0)), "unrecognized");
  EXPECT_EQ(transport_name(static_cast<TransportType>(1)), "rdma");
  EXPECT_EQ(transport_name(static_cast<TransportType>(2)), "fc");
  EXPECT_EQ(transport_name(static_cast<TransportType>(254)), "loop");
  EXPECT_EQ(address_family_name(static_cast<AddressFamily>(0)), "pci");
  EXPECT_EQ(address_family_name(static_cast<AddressFamily>(4)), "fibre-channel");
  EXPECT_EQ(address_family_name(static_cast<AddressFamily>(254)), "unrecognized");
  EXPECT_EQ(transport_name(TransportType::tcp), "tcp");
  EXPECT_EQ(transport_name(static_cast<TransportType>(99)), "unrecognized");
  EXPECT_EQ(address_family_name(AddressFamily::ipv6), "ipv6");
  EXPECT_EQ(subsystem_type_name(SubsystemType::nvme), "nvme subsystem");
}

TEST(AnaLog, GoldenBytesBothWays) {
  const Bytes golden = Bytes(16 + 32 + 8 + 32)
                           .put(0, {9, 0, 0, 0, 0, 0, 0, 1, 2, 0})
                           .put(16, {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 1})
                           .put(48, {4, 0, 0, 0, 5, 0, 0, 0})
                           .put(56, {2})
                           .put(72, {0x0f});
  const auto log = AnaLog::decode(golden.span());
  ASSERT_TRUE(log.has_value()) << log.error().message;
  EXPECT_EQ(log->change_count, 0x0100000000000009u);
  ASSERT_EQ(log->groups.size(), 2u);
  EXPECT_EQ(log->groups[0], (AnaGroup{.group_id = 1,
                                      .change_count = 0x0100000000000003,
                                      .state = AnaState::optimized,
                                      .nsids = {4, 5}}));
  EXPECT_EQ(log->groups[1].state, AnaState::change);
  EXPECT_EQ(ana_state_name(log->groups[1].state), "change");
  EXPECT_EQ(log->encode(), golden.vector());
}

TEST(AnaLog, CutShortIsRefused) {
  const Bytes whole = Bytes(16 + 32 + 8).put(8, {1}).put(20, {2});
  EXPECT_TRUE(AnaLog::decode(whole.span()).has_value());
  for (std::size_t size = 0; size < 56; ++size) {
    EXPECT_FALSE(AnaLog::decode(whole.span().first(size)).has_value()) << size;
  }
  // A count that would overflow a 32-bit size.
  EXPECT_FALSE(AnaLog::decode(Bytes(56).put(8, {1}).put(20, {0xff, 0xff, 0xff, 0xff}).span()));
}

TEST(SelfTestLog, GoldenBytesBothWays) {
  const Bytes golden = Bytes(564)
                           .put(0, {1, 42})
                           .put(4, {0x27, 3, 0x0f, 0})
                           .put(8, {1, 0, 0, 0, 0, 0, 0, 2})
                           .put(16, {5})
                           .put(20, {6, 0, 0, 0, 0, 0, 0, 7})
                           .put(28, {2, 0x81, 8, 9})
                           .put(4 + 19 * 28, {0x1f});
  const auto log = SelfTestLog::decode(golden.span());
  EXPECT_EQ(log.current_operation, 1);
  EXPECT_EQ(log.current_completion, 42);
  EXPECT_EQ(log.results[0].result(), 7);
  EXPECT_EQ(log.results[0].code(), 2);
  EXPECT_EQ(log.results[0].seg, 3);
  EXPECT_EQ(log.results[0].poh, 0x0200000000000001u);
  EXPECT_EQ(log.results[0].nsid, 5u);
  EXPECT_EQ(log.results[0].flba, 0x0700000000000006u);
  EXPECT_EQ(log.results[0].sct, 2);
  EXPECT_EQ(log.results[0].sc, 0x81);
  EXPECT_THAT(log.results[0].vs, ElementsAre(8, 9));
  EXPECT_EQ(log.results[19].result(), kSelfTestUnused);
  EXPECT_EQ(encoded<564>(log), golden.vector());
}

TEST(LogPages, AnyBytesDecodeAndEncodingKeepsTheFields) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    const auto bytes = random_bytes(4096, seed);
    const auto error = ErrorEntry::decode(bytes);
    EXPECT_EQ(ErrorEntry::decode(encoded<64>(error)), error);
    const auto smart = SmartLog::decode(bytes);
    EXPECT_EQ(SmartLog::decode(encoded<512>(smart)), smart);
    const auto firmware = FirmwareSlots::decode(bytes);
    EXPECT_EQ(FirmwareSlots::decode(encoded<512>(firmware)), firmware);
    const auto self_test = SelfTestLog::decode(bytes);
    EXPECT_EQ(SelfTestLog::decode(encoded<564>(self_test)), self_test);
    const auto entry = DiscoveryEntry::decode(bytes);
    EXPECT_EQ(DiscoveryEntry::decode(encoded<1024>(entry)), entry);
    const auto changed = ChangedNamespaces::decode(bytes);
    EXPECT_EQ(ChangedNamespaces::decode(encoded<4096>(changed)), changed);
    static_cast<void>(AnaLog::decode(bytes));
  }
}

}  // namespace
}  // namespace nvmf::nvme
