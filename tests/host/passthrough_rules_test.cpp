// What passthrough refuses, changes, and does around a command: by values alone.
#include <gmock/gmock.h>

#include "host/association.h"
#include "host/passthrough_fixture.h"

namespace nvmf::test {
namespace {

using host::PassthroughPlan;
using host::Scope;
using testing::HasSubstr;

class Rules : public testing::Test {
 protected:
  host::AssociationInfo info;
  nvme::EffectsLog log;
  bool has_log = false;
  bool read_only = false;

  Result<PassthroughPlan> plan(const PassthroughCommand& c) const {
    return plan_passthrough(c, {.info = info,
                                .effects = has_log ? &log : nullptr,
                                .io_queues = 1,
                                .read_only = read_only,
                                .events_needed = nvme::kOaesNamespaceAttributes});
  }
  void refuses(const PassthroughCommand& c, int code, const std::string& sentence) const {
    const auto p = plan(c);
    ASSERT_FALSE(p) << sentence;
    EXPECT_EQ(p.error().code, code) << p.error().message;
    EXPECT_THAT(p.error().message, HasSubstr(sentence));
  }
  static PassthroughCommand feature(nvme::Feature f, std::uint32_t cdw11 = 0) {
    PassthroughCommand c;
    c.sqe = nvme::set_features(f, cdw11);
    return c;
  }
};

TEST_F(Rules, WhatNobodyPassesThrough) {
  PassthroughCommand c = io_command(nvme::read_command(1, 0, 1));
  c.sqe.mptr = 1;
  refuses(c, EOPNOTSUPP, "nvmf passes no metadata through");
  c.sqe.mptr = 0;
  c.metadata_bytes = 8;
  refuses(c, EOPNOTSUPP, "nvmf passes no metadata through");
  c.metadata_bytes = 0;
  c.sqe.flags = 1;
  refuses(c, EOPNOTSUPP, "fused");
}

TEST_F(Rules, WhatTheAssociationLivesBy) {
  for (const std::uint8_t opcode : std::initializer_list<std::uint8_t>{0x00, 0x01, 0x04, 0x05}) {
    refuses(admin_command(static_cast<AdminOpcode>(opcode)), EPERM, "queues are made by Connect");
  }
  refuses(admin_command(AdminOpcode::async_event_request), EPERM, "nvmf events");
  refuses(admin_command(AdminOpcode::keep_alive), EPERM, "Keep Alive");
  refuses(admin_command(AdminOpcode::abort), EPERM, "Abort");
  refuses(io_command({.opcode = 0x18, .nsid = 1}), EPERM, "Cancel");
  for (const std::uint32_t type : {0x01u, 0x05u, 0x06u, 0x08u}) {
    PassthroughCommand c;
    c.sqe.opcode = nvme::kFabricsOpcode;
    c.sqe.nsid = type;
    refuses(c, EPERM, "is not passed through");
    c.io = true;
    refuses(c, EPERM, "is not passed through");
  }
  PassthroughCommand c;
  c.sqe = nvme::property_set(nvme::Property::cc, 0);
  refuses(c, EPERM, "nvmf reset");
  c.sqe = nvme::property_set(nvme::Property::nssr, 0x4e564d65);
  EXPECT_TRUE(plan(c));
  c.sqe = nvme::property_get(nvme::Property::csts);
  EXPECT_TRUE(plan(c));
  refuses(feature(nvme::Feature::number_of_queues), EPERM, "--nr-io-queues");
  refuses(feature(nvme::Feature::keep_alive_timer), EPERM, "--keep-alive-tmo");
  refuses(feature(nvme::Feature::host_behavior), EPERM, "0x16");
  refuses(feature(nvme::Feature::error_recovery, 1u << 16), EPERM, "DULBE");
  EXPECT_TRUE(plan(feature(nvme::Feature::error_recovery, 1)));
}

TEST_F(Rules, DataThatContradictsTheOpcodeOrMdts) {
  std::vector<std::byte> data(16384);
  PassthroughCommand c;
  c.sqe = nvme::identify(nvme::Cns::controller);
  c.data = data;
  c.direction = DataDirection::to_controller;
  refuses(c, EINVAL, "gets data from the controller");
  c.direction = DataDirection::from_controller;
  EXPECT_TRUE(plan(c));
  info.controller.mdts = 1;
  refuses(c, EINVAL, "8192");
  refuses(c, EINVAL, "MDTS");
  c = admin_command(AdminOpcode::format_nvm, 1);
  c.data = data;
  c.direction = DataDirection::to_controller;
  refuses(c, EINVAL, "has no data");
}

TEST_F(Rules, EventsThatTheConnectionNeedsStay) {
  const auto p = plan(feature(nvme::Feature::async_event_config, 0x1));
  ASSERT_TRUE(p);
  EXPECT_EQ(p->sqe.cdw11, 0x1 | nvme::kOaesNamespaceAttributes);
  EXPECT_THAT(p->note, HasSubstr("0x101"));
}

TEST_F(Rules, WhatChangesWhichBlocks) {
  auto p = plan(io_command(nvme::write_command(1, 5, 3)));
  ASSERT_TRUE(p);
  EXPECT_EQ(p->changes, Scope::one_namespace);
  EXPECT_TRUE(p->blocks_known);
  EXPECT_EQ(p->first_lba, 5u);
  EXPECT_EQ(p->end_lba, 8u);
  EXPECT_EQ(p->quiesce, Scope::none);
  // All blocks of the namespace (NSZ).
  p = plan(io_command(nvme::write_zeroes_command(1, 5, 3, 1u << 23)));
  EXPECT_FALSE(p->blocks_known);
  p = plan(io_command(nvme::write_command(1, ~0ull - 1, 8)));
  EXPECT_FALSE(p->blocks_known) << "past the end of all numbers";
  auto ranges = nvme::encode_dsm_ranges(std::vector<nvme::DsmRange>{{0, 4, 100}, {0, 2, 7}});
  PassthroughCommand dsm = io_command(nvme::dsm_command(1, 2));
  dsm.data = ranges;
  dsm.direction = DataDirection::to_controller;
  p = plan(dsm);
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->blocks_known);
  EXPECT_EQ(p->first_lba, 7u);
  EXPECT_EQ(p->end_lba, 104u);
  p = plan(io_command({.opcode = 0x19, .nsid = 1}));  // Copy
  EXPECT_EQ(p->changes, Scope::one_namespace);
  EXPECT_FALSE(p->blocks_known);
  p = plan(io_command({.opcode = 0xc1, .nsid = nvme::kNsidAll}));
  EXPECT_EQ(p->changes, Scope::all_namespaces);
  EXPECT_EQ(p->quiesce, Scope::all_namespaces);
  for (const std::uint8_t opcode :
       std::initializer_list<std::uint8_t>{0x00, 0x02, 0x05, 0x0c, 0x0e}) {
    EXPECT_EQ(plan(io_command({.opcode = opcode, .nsid = 1}))->changes, Scope::none);
  }
}

TEST_F(Rules, EffectsThatAreKnownWithoutALog) {
  auto p = plan(admin_command(AdminOpcode::format_nvm, 3));
  EXPECT_EQ(p->quiesce, Scope::one_namespace);
  EXPECT_EQ(p->changes, Scope::one_namespace);
  EXPECT_EQ(p->identify, Scope::one_namespace);
  info.controller.fna = 1;
  EXPECT_EQ(plan(admin_command(AdminOpcode::format_nvm, 3))->changes, Scope::all_namespaces);
  p = plan(admin_command(AdminOpcode::sanitize));
  EXPECT_EQ(p->quiesce, Scope::all_namespaces);
  EXPECT_EQ(p->changes, Scope::all_namespaces);
  PassthroughCommand remove = admin_command(AdminOpcode::namespace_management, 3);
  remove.sqe.cdw10 = 1;
  p = plan(remove);
  EXPECT_EQ(p->changes, Scope::one_namespace);
  EXPECT_TRUE(p->list_changes);
  p = plan(feature(nvme::Feature::namespace_write_protect, 1));
  EXPECT_EQ(p->identify, Scope::all_namespaces);
  EXPECT_EQ(p->changes, Scope::none);
  p = plan(admin_command(AdminOpcode::get_features));
  EXPECT_EQ(p->quiesce, Scope::none);
  // What nobody knows may do anything.
  p = plan(admin_command(static_cast<AdminOpcode>(0xc0), 3));
  EXPECT_EQ(p->changes, Scope::one_namespace);
  EXPECT_EQ(p->quiesce, Scope::one_namespace);
}

TEST_F(Rules, TheControllersLogCounts) {
  has_log = true;
  log.acs[0xc0] = nvme::kEffectSupported;
  EXPECT_EQ(plan(admin_command(static_cast<AdminOpcode>(0xc0), 3))->changes, Scope::none);
  log.acs[0xc0] |= nvme::kEffectNic;
  auto p = plan(admin_command(static_cast<AdminOpcode>(0xc0), 3));
  EXPECT_EQ(p->identify, Scope::all_namespaces);
  EXPECT_TRUE(p->list_changes);
  // That a write changes blocks is no reason for everybody to stand still; that it is to be alone
  // is.
  log.iocs[0x01] = nvme::kEffectSupported | nvme::kEffectLbcc;
  EXPECT_EQ(plan(io_command(nvme::write_command(1, 5, 3)))->quiesce, Scope::none);
  log.iocs[0x01] |= 1u << 16;
  EXPECT_EQ(plan(io_command(nvme::write_command(1, 5, 3)))->quiesce, Scope::one_namespace);
  log.iocs[0x01] = nvme::kEffectSupported | 2u << 16;
  EXPECT_EQ(plan(io_command(nvme::write_command(1, 5, 3)))->quiesce, Scope::all_namespaces);
  // The log cannot take back what is known.
  log.acs[0x80] = nvme::kEffectSupported;
  EXPECT_EQ(plan(admin_command(AdminOpcode::format_nvm, 3))->changes, Scope::one_namespace);
}

TEST_F(Rules, ReadOnlyRefusesWhatMayChangeData) {
  read_only = true;
  refuses(io_command(nvme::write_command(1, 5, 3)), EROFS, "read-only");
  refuses(io_command({.opcode = 0xc1, .nsid = 1}), EROFS, "read-only");
  refuses(admin_command(AdminOpcode::format_nvm, 3), EROFS, "read-only");
  refuses(admin_command(static_cast<AdminOpcode>(0xc1), 3), EROFS, "read-only");
  EXPECT_TRUE(plan(io_command(nvme::read_command(1, 5, 3))));
  EXPECT_TRUE(plan(admin_command(AdminOpcode::get_log_page)));
}

}  // namespace
}  // namespace nvmf::test
