// Identify, log pages, features, properties.
#include "controller/test_host.h"
#include "nvme/endian.h"

namespace nvmf::controller {
namespace {

using nvme::Cns;
using nvme::Feature;
using nvme::FeatureSelect;
using nvme::LogPage;
using nvme::StatusCode;

class AdminTest : public ControllerTest {
 protected:
  void SetUp() override {
    TargetConfig config = one_subsystem({memory(1 << 20), file("disk.img", 1 << 20, 4096)});
    config.cqt_ms = 7;
    start(std::move(config));
    h = &host();
    h->bring_up();
  }
  Answer get(Feature feature, FeatureSelect select = FeatureSelect::current,
             std::uint32_t cdw11 = 0, std::uint32_t nsid = 0) {
    return h->admin().send(nvme::get_features(feature, nsid, cdw11, select));
  }
  Answer set(Feature feature, std::uint32_t cdw11, std::uint32_t nsid = 0) {
    return h->admin().send(nvme::set_features(feature, cdw11, nsid));
  }

  TestHost* h = nullptr;
};

TEST_F(AdminTest, IdentifiesAsLinuxDemands) {
  const auto id = h->identify_controller();
  EXPECT_EQ(id.cntlid, h->cntlid());
  EXPECT_EQ(id.subnqn, kSubsystemNqn);
  EXPECT_EQ(id.mn, "nvmf-target");
  EXPECT_FALSE(id.sn.empty());
  EXPECT_EQ(id.cntrltype, nvme::ControllerType::io);
  EXPECT_NE(id.kas, 0);
  EXPECT_EQ(id.ioccsz, 4u + 8192 / 16);
  EXPECT_GE(id.iorcsz, 1u);
  EXPECT_NE(id.sgls, 0u);
  EXPECT_EQ(id.icdoff, 0);
  EXPECT_EQ(id.maxcmd, 128);
  EXPECT_EQ(id.nn, 2u);
  EXPECT_EQ(id.cqt, 7);
  EXPECT_EQ(id.sqes, 0x66);
  EXPECT_EQ(id.cqes, 0x44);
  EXPECT_EQ(id.max_transfer_bytes(0), kTransferBytesMax);
  EXPECT_EQ(id.vwc & nvme::kVwcPresent, nvme::kVwcPresent);
  EXPECT_NE(id.ctratt & nvme::kCtrattTbkas, 0u);
}

TEST_F(AdminTest, IdentifiesNamespaces) {
  const Answer one = h->identify(Cns::identify_namespace, 1);
  ASSERT_TRUE(one.ok());
  const auto id = nvme::IdentifyNamespace::decode(one.data);
  EXPECT_EQ(id.nsze, 2048u);
  EXPECT_EQ(id.block_bytes(), 512u);
  EXPECT_NE(id.nguid, nvme::Nguid{});
  EXPECT_EQ(id.dlfeat, nvme::kDlfeatReadsZero | nvme::kDlfeatWriteZeroesDeac);
  const auto two = nvme::IdentifyNamespace::decode(h->identify(Cns::identify_namespace, 2).data);
  EXPECT_EQ(two.nsze, 256u);
  EXPECT_EQ(two.block_bytes(), 4096u);

  const auto names =
      nvme::NamespaceDescriptors::decode(h->identify(Cns::namespace_descriptors, 1).data);
  ASSERT_TRUE(names);
  ASSERT_TRUE(names->uuid && names->nguid);
  EXPECT_EQ(*names->nguid, id.nguid);
  EXPECT_EQ(names->csi, nvme::Csi::nvm);

  const auto independent =
      nvme::IdentifyIndependentNamespace::decode(h->identify(Cns::independent_namespace, 2).data);
  EXPECT_EQ(independent.nstat & 1, 1);
  for (const Cns cns : {Cns::identify_namespace, Cns::namespace_descriptors,
                        Cns::independent_namespace, Cns::csi_namespace}) {
    for (const std::uint32_t nsid : {0u, 3u, nvme::kNsidAll}) {
      const Answer refused = h->identify(cns, nsid);
      EXPECT_EQ(refused.code(), code_of(StatusCode::invalid_namespace));
      EXPECT_TRUE(refused.status.dnr);
    }
  }
}

TEST_F(AdminTest, ListsNamespacesAndCommandSets) {
  for (const Cns cns : {Cns::active_namespaces, Cns::csi_active_namespaces}) {
    const Answer all = h->identify(cns, 0);
    ASSERT_TRUE(all.ok());
    EXPECT_EQ(nvme::decode_namespace_list(all.data), (std::vector<std::uint32_t>{1, 2}));
    EXPECT_EQ(nvme::decode_namespace_list(h->identify(cns, 1).data),
              (std::vector<std::uint32_t>{2}));
    EXPECT_EQ(nvme::decode_namespace_list(h->identify(cns, 2).data), std::vector<std::uint32_t>{});
    EXPECT_EQ(h->identify(cns, nvme::kNsidAll).code(), code_of(StatusCode::invalid_namespace));
  }
  EXPECT_EQ(nvme::decode_command_sets(h->identify(Cns::command_sets).data),
            (std::vector<std::uint64_t>{1}));
  const auto limits = nvme::IdentifyNvmController::decode(h->identify(Cns::csi_controller).data);
  EXPECT_EQ(limits.wzsl, kWzsl);
  EXPECT_TRUE(h->identify(Cns::csi_namespace, 1).ok());
}

TEST_F(AdminTest, RefusesWhatItCannotIdentify) {
  for (const Cns cns : {Cns::nvm_sets, Cns::allocated_namespaces, static_cast<Cns>(0xff)}) {
    const Answer refused = h->identify(cns, 1);
    EXPECT_EQ(refused.code(), code_of(StatusCode::invalid_field));
    EXPECT_TRUE(refused.status.dnr);
  }
  EXPECT_EQ(h->identify(Cns::csi_controller, 0, nvme::Csi::zoned).code(),
            code_of(StatusCode::invalid_field));
  EXPECT_EQ(h->admin().fetch(nvme::identify(Cns::controller), 512).code(),
            code_of(StatusCode::data_sgl_length_invalid));
}

TEST_F(AdminTest, GivesLogPagesInPieces) {
  const Answer whole = h->log(LogPage::effects, nvme::kEffectsBytes);
  ASSERT_TRUE(whole.ok());
  Bytes joined;
  for (std::uint64_t at = 0; at < nvme::kEffectsBytes; at += 1000) {
    const std::uint64_t length = std::min<std::uint64_t>(1000, nvme::kEffectsBytes - at);
    const Answer piece = h->log(LogPage::effects, length, at);
    ASSERT_TRUE(piece.ok());
    joined.insert(joined.end(), piece.data.begin(), piece.data.end());
  }
  EXPECT_EQ(joined, whole.data);
  const auto effects = nvme::EffectsLog::decode(whole.data);
  EXPECT_NE(effects.iocs[0x01] & nvme::kEffectLbcc, 0u);
  EXPECT_EQ(effects.iocs[0x02], nvme::kEffectSupported);
  EXPECT_EQ(effects.acs[0x84], 0u);  // no Sanitize

  // Longer than the page: zeroes follow. Past its end, unaligned, unknown: refused.
  const Answer longer = h->log(LogPage::firmware_slot, 65536);
  ASSERT_TRUE(longer.ok());
  EXPECT_EQ(nvme::FirmwareSlots::decode(longer.data).frs[0], NVMF_VERSION);
  EXPECT_EQ(longer.data.back(), std::byte{0});
  EXPECT_EQ(longer.received_bytes, 65536u);
  EXPECT_TRUE(h->log(LogPage::effects, 8, nvme::kEffectsBytes).ok());
  EXPECT_EQ(h->log(LogPage::effects, 8, nvme::kEffectsBytes + 4).code(),
            code_of(StatusCode::invalid_field));
  EXPECT_EQ(h->log(LogPage::ana, 512).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(h->log(LogPage::discovery, 1024).code(), code_of(StatusCode::invalid_field));
  nvme::GetLogPage get;
  get.page = LogPage::effects;
  get.length_bytes = 16;
  nvme::Sqe unaligned = get.to_sqe();
  unaligned.cdw12 = 2;
  EXPECT_EQ(h->admin().fetch(unaligned, 16).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(h->admin().fetch(get.to_sqe(), 32).code(),
            code_of(StatusCode::data_sgl_length_invalid));
  // A length beyond MDTS is refused before anything is made.
  nvme::Sqe huge = get.to_sqe();
  huge.cdw10 |= 0xffff0000u;
  huge.cdw11 |= 0xffffu;
  EXPECT_EQ(h->admin().fetch(huge, 16).code(), code_of(StatusCode::invalid_field));
}

TEST_F(AdminTest, SupportsTheLogPagesThatItSaysItDoes) {
  const Answer pages = h->log(LogPage::supported_pages, nvme::kSupportedLogPagesBytes);
  ASSERT_TRUE(pages.ok());
  const auto supported = nvme::SupportedLogPages::decode(pages.data);
  for (unsigned page = 0; page < 256; ++page) {
    const bool answered = h->log(static_cast<LogPage>(page), 512).ok();
    EXPECT_EQ(supported.supports(static_cast<LogPage>(page)), answered) << "page " << page;
  }
}

TEST_F(AdminTest, CountsInSmart) {
  ASSERT_TRUE(h->connect_io(1).ok());
  ASSERT_TRUE(h->write(0, Bytes(4096)).ok());
  ASSERT_TRUE(h->write(0, Bytes(4096)).ok());
  ASSERT_TRUE(h->read(0, 8).ok());
  loop.run_for(std::chrono::hours(3));
  auto log = h->smart();
  EXPECT_EQ(log.host_write_commands.low, 2u);
  EXPECT_EQ(log.host_read_commands.low, 1u);
  EXPECT_EQ(log.data_units_written.low, 1u);  // rounded up
  EXPECT_EQ(log.power_on_hours.low, 3u);
  EXPECT_EQ(log.critical_warning, 0);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(h->write(0, Bytes(512 * 1024)).ok());
  }
  log = h->smart();
  EXPECT_EQ(log.data_units_written.low, 3u);  // 8 KiB + 1 MiB in thousands of 512 bytes
}

TEST_F(AdminTest, KeepsAnErrorLog) {
  ASSERT_TRUE(h->connect_io(1).ok());
  const Answer failed = h->read(5000, 1);
  EXPECT_EQ(failed.code(), code_of(StatusCode::lba_out_of_range));
  EXPECT_TRUE(failed.status.more);
  Answer page = h->log(LogPage::error_information, 64 * 64);
  ASSERT_TRUE(page.ok());
  const auto entry = nvme::ErrorEntry::decode(std::span(page.data).first(64));
  EXPECT_EQ(entry.error_count, 1u);
  EXPECT_EQ(entry.sqid, 1);
  EXPECT_EQ(entry.lba, 5000u);
  EXPECT_EQ(entry.nsid, 1u);
  EXPECT_EQ(entry.opcode, 0x02);
  EXPECT_EQ(static_cast<unsigned>(entry.status().code()), code_of(StatusCode::lba_out_of_range));
  EXPECT_EQ(nvme::ErrorEntry::decode(std::span(page.data).subspan(64, 64)).error_count, 0u);
  // Only the last 64 are kept, the newest first.
  for (std::uint64_t i = 0; i < 70; ++i) EXPECT_FALSE(h->read(6000 + i, 1).ok());
  page = h->log(LogPage::error_information, 64 * 64);
  EXPECT_EQ(nvme::ErrorEntry::decode(std::span(page.data).first(64)).lba, 6069u);
  EXPECT_EQ(nvme::ErrorEntry::decode(std::span(page.data).last(64)).lba, 6006u);
  EXPECT_EQ(h->smart().num_err_log_entries.low, 71u);
}

TEST_F(AdminTest, RemembersFeatures) {
  ASSERT_TRUE(set(Feature::arbitration, 0x03020104).ok());
  EXPECT_EQ(get(Feature::arbitration).dw0(), 0x03020104u);
  EXPECT_EQ(get(Feature::arbitration, FeatureSelect::fallback).dw0(), 0u);
  EXPECT_EQ(get(Feature::arbitration, FeatureSelect::saved).dw0(), 0u);
  EXPECT_EQ(get(Feature::arbitration, FeatureSelect::supported).dw0(), 4u);
  ASSERT_TRUE(set(Feature::temperature_threshold, 350).ok());
  ASSERT_TRUE(set(Feature::temperature_threshold, 1u << 20 | 250).ok());
  EXPECT_EQ(get(Feature::temperature_threshold).dw0(), 350u);
  EXPECT_EQ(get(Feature::temperature_threshold, FeatureSelect::current, 1u << 20).dw0(), 250u);
  EXPECT_EQ(set(Feature::temperature_threshold, 5u << 16).code(),
            code_of(StatusCode::invalid_field));
  ASSERT_TRUE(set(Feature::error_recovery, 30, 2).ok());
  EXPECT_EQ(get(Feature::error_recovery, FeatureSelect::current, 0, 2).dw0(), 30u);
  EXPECT_EQ(get(Feature::error_recovery, FeatureSelect::current, 0, 1).dw0(), 0u);
  EXPECT_EQ(set(Feature::error_recovery, 1u << 16, 1).code(),
            code_of(StatusCode::invalid_field));  // DULBE
  EXPECT_EQ(get(Feature::volatile_write_cache).dw0(), 1u);
  ASSERT_TRUE(set(Feature::volatile_write_cache, 0).ok());
  EXPECT_EQ(get(Feature::volatile_write_cache).dw0(), 0u);
  ASSERT_TRUE(set(Feature::keep_alive_timer, 1250).ok());
  EXPECT_EQ(get(Feature::keep_alive_timer).dw0(), 1300u);  // KAS is 100 ms
  EXPECT_EQ(set(Feature::power_management, 1).code(), code_of(StatusCode::invalid_field));
  EXPECT_TRUE(set(Feature::power_management, 0).ok());
}

TEST_F(AdminTest, RefusesFeaturesThatItLacks) {
  for (unsigned id = 0; id < 256; ++id) {
    const auto feature = static_cast<Feature>(id);
    const bool known = get(feature, FeatureSelect::supported).ok();
    const Answer answer = set(feature, 0, feature == Feature::error_recovery ? 1 : 0);
    if (known) continue;
    EXPECT_EQ(answer.code(), code_of(feature == Feature::timestamp ? StatusCode::success
                                                                   : StatusCode::invalid_field))
        << id;
    EXPECT_EQ(get(feature).code(), code_of(StatusCode::invalid_field)) << id;
  }
  EXPECT_EQ(h->admin().send(nvme::set_features(Feature::arbitration, 0, 0, true)).code(),
            code_of(StatusCode::feature_not_saveable));
  EXPECT_EQ(set(Feature::arbitration, 0, 1).code(),
            code_of(StatusCode::feature_not_namespace_specific));
  EXPECT_EQ(set(Feature::host_id, 0).code(), code_of(StatusCode::feature_not_changeable));
  EXPECT_EQ(get(Feature::arbitration, static_cast<FeatureSelect>(5)).code(),
            code_of(StatusCode::invalid_field));
}

TEST_F(AdminTest, MovesTheDataOfFeatures) {
  Bytes time(8);
  store_le64(time.data(), 1'700'000'000'000u);
  ASSERT_TRUE(h->admin().send(nvme::set_features(Feature::timestamp, 0), time).ok());
  loop.run_for(5s);
  const Answer now = h->admin().fetch(nvme::get_features(Feature::timestamp), 8);
  ASSERT_TRUE(now.ok());
  EXPECT_EQ(load_le64(now.data.data()) & 0xffff'ffff'ffffu, 1'700'000'005'000u);
  EXPECT_EQ(load_u8(now.data.data() + 6), 2);  // set by the host

  nvme::HostBehavior behavior;
  behavior.acre = true;
  Bytes data(nvme::kHostBehaviorBytes);
  behavior.encode(std::span<std::byte, nvme::kHostBehaviorBytes>(data));
  ASSERT_TRUE(h->admin().send(nvme::set_host_behavior(), data).ok());
  const Answer back = h->admin().fetch(nvme::get_features(Feature::host_behavior), 512);
  EXPECT_EQ(nvme::HostBehavior::decode(back.data), behavior);
  EXPECT_EQ(h->admin().send(nvme::set_host_behavior(), Bytes(100)).code(),
            code_of(StatusCode::data_sgl_length_invalid));
  EXPECT_EQ(h->admin().send(nvme::set_host_behavior()).code(),
            code_of(StatusCode::data_sgl_length_invalid));

  const Answer id = h->admin().fetch(nvme::get_features(Feature::host_id, 0, 1), 16);
  ASSERT_TRUE(id.ok());
  EXPECT_TRUE(std::ranges::equal(id.data, host_id(1)));
}

TEST_F(AdminTest, AnswersUnknownCommands) {
  const auto known = nvme::EffectsLog::decode(h->log(LogPage::effects, nvme::kEffectsBytes).data);
  for (unsigned opcode = 0; opcode < 256; ++opcode) {
    if (opcode == nvme::kFabricsOpcode || (known.acs[opcode] & 1) != 0) continue;
    nvme::Sqe sqe;
    sqe.opcode = static_cast<std::uint8_t>(opcode);
    const Answer answer = h->admin().send(sqe);
    EXPECT_EQ(answer.code(), code_of(StatusCode::invalid_opcode)) << opcode;
    EXPECT_TRUE(answer.status.dnr);
  }
  nvme::Sqe fabrics;
  fabrics.opcode = nvme::kFabricsOpcode;
  fabrics.nsid = 5;  // Authentication Send
  EXPECT_EQ(h->admin().send(fabrics).code(), code_of(StatusCode::invalid_opcode));
  EXPECT_EQ(h->admin().send(nvme::disconnect_command()).code(),
            code_of(StatusCode::invalid_opcode));
}

TEST_F(AdminTest, ShowsProperties) {
  const auto read = [this](nvme::Property p) { return h->admin().send(nvme::property_get(p)); };
  const auto cap = nvme::ControllerCapabilities::decode(read(nvme::Property::cap).result);
  EXPECT_EQ(cap.mqes, 127);
  EXPECT_TRUE(cap.cqr);
  EXPECT_EQ(cap.css, nvme::kCapCssNvm);
  EXPECT_EQ(cap.mpsmin, 0);
  EXPECT_GT(cap.to, 0);
  EXPECT_EQ(read(nvme::Property::vs).dw0(), nvme::kVersion20);
  EXPECT_TRUE(nvme::ControllerConfiguration::decode(read(nvme::Property::cc).dw0()).en);
  EXPECT_GT(read(nvme::Property::crto).dw0(), 0u);  // CRMS says so
  EXPECT_EQ(read(nvme::Property::nssr).code(), code_of(StatusCode::invalid_field));
  nvme::PropertyCommand wrong_size{.offset = 0, .eight_bytes = false, .value = 0};
  EXPECT_EQ(h->admin().send(wrong_size.to_get()).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(h->admin().send(nvme::property_set(nvme::Property::vs, 1)).code(),
            code_of(StatusCode::invalid_field));
}

TEST_F(AdminTest, RefusesFusedCommandsAndMisplacedData) {
  nvme::Sqe fused = nvme::keep_alive();
  fused.flags = 1;
  EXPECT_EQ(h->admin().send(fused).code(), code_of(StatusCode::invalid_field));
  // Identify with its buffer in the capsule, as if it were data for the controller.
  EXPECT_EQ(h->admin().send(nvme::identify(Cns::controller), Bytes(4096)).code(),
            code_of(StatusCode::sgl_type_invalid));
}

}  // namespace
}  // namespace nvmf::controller
