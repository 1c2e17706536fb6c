// Whether a namespace is the disk that it was.

#include "host/same_namespace.h"

#include <gmock/gmock.h>

namespace nvmf::host {
namespace {

using testing::HasSubstr;

template <class Id>
Id filled(unsigned value) {
  Id id{};
  id.fill(static_cast<std::byte>(value));
  return id;
}

/// With all three identifiers.
Namespace disk() {
  Namespace ns;
  ns.info.nsid = 3;
  ns.blocks = 1000;
  ns.block_shift = 12;
  ns.uuid = filled<nvme::Uuid>(0x11);
  ns.nguid = filled<nvme::Nguid>(0x22);
  ns.eui64 = filled<nvme::Eui64>(0x33);
  ns.subnqn = "nqn.2024-01.org.example:disks";
  ns.serial = "S1";
  return ns;
}

Namespace nameless() {
  Namespace ns = disk();
  ns.uuid.reset();
  ns.nguid = {};
  ns.eui64 = {};
  return ns;
}

/// The sentence of the refusal; empty if it is the same disk.
std::string differs(const Namespace& before, const Namespace& now, bool weak = false) {
  const auto result = same_namespace(before, now, weak);
  if (result) return "";
  EXPECT_EQ(result.error().code, ESTALE);
  EXPECT_THAT(result.error().message, HasSubstr("namespace 3 is not the disk that it was"));
  return result.error().message;
}

TEST(SameNamespace, IsWhatItWas) {
  EXPECT_EQ(differs(disk(), disk()), "");
}

TEST(SameNamespace, OneIdentifierIsEnough) {
  for (int which = 0; which < 3; ++which) {
    Namespace ns = nameless();
    if (which == 0) ns.uuid = disk().uuid;
    if (which == 1) ns.nguid = disk().nguid;
    if (which == 2) ns.eui64 = disk().eui64;
    EXPECT_EQ(differs(ns, ns), "") << which;
    EXPECT_EQ(differs(disk(), ns), "") << which;
    EXPECT_EQ(differs(ns, disk()), "") << which;
  }
}

TEST(SameNamespace, OneThatDiffersIsTooMuch) {
  Namespace now = disk();
  now.uuid = filled<nvme::Uuid>(0x44);
  EXPECT_THAT(differs(disk(), now),
              HasSubstr("its UUID was 11111111-1111-1111-1111-111111111111 and is "
                        "44444444-4444-4444-4444-444444444444"));
  now = disk();
  now.nguid[15] = std::byte{0};
  EXPECT_THAT(differs(disk(), now), HasSubstr("its NGUID was 2222"));
  now = disk();
  now.eui64[0] = std::byte{1};
  EXPECT_THAT(differs(disk(), now),
              HasSubstr("its EUI64 was 3333333333333333 and is 0133333333333333"));
}

TEST(SameNamespace, NoneInCommonIsNone) {
  Namespace before = nameless();
  before.uuid = disk().uuid;
  Namespace now = nameless();
  now.eui64 = disk().eui64;
  for (const bool weak : {false, true}) {
    const std::string sentence = differs(before, now, weak);
    EXPECT_THAT(sentence, HasSubstr("UUID 11111111-1111-"));
    EXPECT_THAT(sentence, HasSubstr("EUI64 3333333333333333"));
    EXPECT_THAT(differs(before, nameless(), weak), HasSubstr("are none"));
    EXPECT_THAT(differs(nameless(), now, weak), HasSubstr("were none"));
  }
}

TEST(SameNamespace, ZeroesAreNoIdentifier) {
  Namespace ns = nameless();
  ns.uuid = nvme::Uuid{};
  EXPECT_THAT(differs(ns, ns), HasSubstr("--weak-identity"));
}

TEST(SameNamespace, WithoutIdentifiersOnlyByTheUsersLeave) {
  EXPECT_THAT(differs(nameless(), nameless()), HasSubstr("--weak-identity"));
  EXPECT_EQ(differs(nameless(), nameless(), true), "");
  Namespace now = nameless();
  now.serial = "S2";
  EXPECT_THAT(differs(nameless(), now, true), HasSubstr("\"S1\" and is \"S2\""));
  for (const std::uint64_t blocks : {999u, 1001u}) {
    now = nameless();
    now.blocks = blocks;
    EXPECT_THAT(differs(nameless(), now, true), HasSubstr("it had 1000 blocks"));
  }
}

TEST(SameNamespace, AnEmptySerialNumberStandsForNothing) {
  Namespace ns = nameless();
  ns.serial = "";
  EXPECT_NE(differs(ns, ns, true), "");
}

TEST(SameNamespace, TheSerialNumberOfADiskWithIdentifiersDoesNotMatter) {
  Namespace now = disk();
  now.serial = "S2";
  EXPECT_EQ(differs(disk(), now), "");
}

TEST(SameNamespace, SubsystemCommandSetAndFormatAreTheSame) {
  Namespace now = disk();
  now.subnqn = "nqn.2024-01.org.example:others";
  EXPECT_THAT(differs(disk(), now), HasSubstr("org.example:others"));
  now = disk();
  now.csi = nvme::Csi::zoned;
  EXPECT_THAT(differs(disk(), now), HasSubstr("its command set was 0 and is 2"));
  now = disk();
  now.block_shift = 9;
  EXPECT_THAT(differs(disk(), now), HasSubstr("4096 bytes and have 512"));
  now = disk();
  now.metadata_bytes = 8;
  EXPECT_THAT(differs(disk(), now), HasSubstr("no metadata and has 8 bytes"));
  Namespace before = now;
  now.metadata_with_data = true;
  EXPECT_THAT(differs(before, now), HasSubstr("with the data"));
  now = before;
  now.protection_type = 1;
  EXPECT_THAT(differs(before, now), HasSubstr("protection type 1"));
}

TEST(SameNamespace, MayGrowButNotShrink) {
  Namespace now = disk();
  now.blocks = 1001;
  EXPECT_EQ(differs(disk(), now), "");
  now.blocks = 999;
  EXPECT_THAT(differs(disk(), now), HasSubstr("it had 1000 blocks and has only 999"));
}

/// What is compared comes from where the controller says it.
TEST(SameNamespace, IdentifyFillsItIn) {
  nvme::IdentifyController controller;
  controller.subnqn = "nqn.2024-01.org.example:disks";
  controller.sn = "S1";
  nvme::IdentifyNamespace id;
  id.nsze = id.ncap = 8;
  id.lbaf[0].lbads = 9;
  id.nguid = filled<nvme::Nguid>(0x22);
  id.dps = 0x0a;
  nvme::NamespaceDescriptors descriptors;
  descriptors.uuid = filled<nvme::Uuid>(0x11);
  descriptors.csi = nvme::Csi::nvm;
  const std::optional<nvme::IdentifyNvmController> none;
  const auto ns = make_namespace({.nsid = 3,
                                  .connection_name = "nvmf0",
                                  .controller = controller,
                                  .nvm_controller = none,
                                  .id = id,
                                  .descriptors = descriptors});
  ASSERT_TRUE(ns) << ns.error().message;
  EXPECT_EQ((*ns)->subnqn, controller.subnqn);
  EXPECT_EQ((*ns)->serial, "S1");
  EXPECT_EQ((*ns)->csi, nvme::Csi::nvm);
  EXPECT_EQ((*ns)->metadata_bytes, 0);
  EXPECT_FALSE((*ns)->metadata_with_data);
  EXPECT_EQ((*ns)->protection_type, 2);
  EXPECT_EQ((*ns)->uuid, descriptors.uuid);
  EXPECT_EQ((*ns)->nguid, id.nguid);
  EXPECT_EQ(differs(**ns, **ns), "");
}

}  // namespace
}  // namespace nvmf::host
