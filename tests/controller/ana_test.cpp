// Asymmetric namespace access: what is reported, what is told, and what commands meet.
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::AnaState;
using nvme::LogPage;
using nvme::StatusCode;

class AnaTest : public ControllerTest {
 protected:
  static NamespaceConfig in_group(std::uint32_t group) {
    NamespaceConfig config = memory(1 << 20);
    config.ana_group = group;
    return config;
  }
  void SetUp() override {
    TargetConfig config = one_subsystem({in_group(1), in_group(2), in_group(1)});
    config.subsystems[0].ana_groups = 3;
    start(std::move(config));
    ASSERT_TRUE(target->listen({"127.0.0.1", 4421, ""}));
    h = &host();
    h->bring_up_io();
  }
  nvme::AnaLog ana(TestHost& who, std::uint8_t lsp = 0, bool retain = false) {
    nvme::GetLogPage get;
    get.page = LogPage::ana;
    get.length_bytes = 1024;
    get.lsp = lsp;
    get.retain_event = retain;
    const Answer answer = who.log(get);
    EXPECT_TRUE(answer.ok());
    const auto log = nvme::AnaLog::decode(answer.data);
    EXPECT_TRUE(log);
    return log.value_or(nvme::AnaLog{});
  }
  std::shared_ptr<Pending> ask(TestHost& who) {
    EXPECT_TRUE(who.admin().send(nvme::set_async_events(nvme::kOaesAnaChange)).ok());
    auto request = who.admin().start(nvme::async_event_request());
    loop.run_until_idle();
    return request;
  }
  void set(std::uint32_t group, AnaState state, std::uint16_t port = 0) {
    const auto done = target->set_ana_state(kSubsystemNqn, group, state, port);
    ASSERT_TRUE(done) << done.error().message;
  }

  TestHost* h = nullptr;
};

TEST_F(AnaTest, IsReported) {
  const auto id = h->identify_controller();
  EXPECT_NE(id.cmic & nvme::kCmicAna, 0);
  EXPECT_NE(id.oaes & nvme::kOaesAnaChange, 0u);
  EXPECT_EQ(id.anacap, 0x1f);
  EXPECT_NE(id.anatt, 0);
  EXPECT_EQ(id.anagrpmax, 3u);
  EXPECT_EQ(id.nanagrpid, 3u);
  // Linux refuses what is not so.
  EXPECT_NE(id.mnan, 0u);
  EXPECT_LE(id.mnan, id.nn);
  const auto group = [this](std::uint32_t nsid) {
    return nvme::IdentifyNamespace::decode(h->identify(nvme::Cns::identify_namespace, nsid).data)
        .anagrpid;
  };
  EXPECT_EQ(group(1), 1u);
  EXPECT_EQ(group(2), 2u);
  EXPECT_EQ(nvme::IdentifyIndependentNamespace::decode(
                h->identify(nvme::Cns::independent_namespace, 2).data)
                .anagrpid,
            2u);
  const auto log = ana(*h);
  ASSERT_EQ(log.groups.size(), 3u);
  EXPECT_EQ(log.groups[0].group_id, 1u);
  EXPECT_EQ(log.groups[0].state, AnaState::optimized);
  EXPECT_EQ(log.groups[0].nsids, (std::vector<std::uint32_t>{1, 3}));
  EXPECT_EQ(log.groups[1].nsids, (std::vector<std::uint32_t>{2}));
  EXPECT_TRUE(log.groups[2].nsids.empty());
  const auto only = ana(*h, nvme::kLspAnaGroupsOnly);
  ASSERT_EQ(only.groups.size(), 3u);
  EXPECT_TRUE(only.groups[0].nsids.empty());
  const auto pages = nvme::SupportedLogPages::decode(h->log(LogPage::supported_pages, 1024).data);
  EXPECT_TRUE(pages.supports(LogPage::ana));
}

TEST_F(AnaTest, ClosesTheWay) {
  const auto block = random_bytes(512, 1);
  for (const auto& [state, code] :
       {std::pair{AnaState::inaccessible, StatusCode::ana_inaccessible},
        std::pair{AnaState::persistent_loss, StatusCode::ana_persistent_loss},
        std::pair{AnaState::change, StatusCode::ana_transition}}) {
    set(1, state);
    const Answer refused = h->read(0, 1);
    EXPECT_EQ(refused.code(), code_of(code));
    EXPECT_FALSE(refused.status.dnr);  // on this way, now
    EXPECT_EQ(h->write(0, block).code(), code_of(code));
    EXPECT_EQ(h->io().send(nvme::flush_command(1)).code(), code_of(code));
    EXPECT_TRUE(h->read(0, 1, 512, 2).ok());
    EXPECT_EQ(ana(*h).groups[0].state, state);
  }
  set(1, AnaState::non_optimized);
  EXPECT_TRUE(h->write(0, block).ok());
  EXPECT_EQ(h->read(0, 1).data, block);
}

TEST_F(AnaTest, TellsOfChanges) {
  auto request = ask(*h);
  const auto before = ana(*h);
  set(2, AnaState::optimized);  // as it was
  loop.run_for(1s);
  EXPECT_FALSE(request->done);
  set(2, AnaState::non_optimized);
  const Answer told = h->admin().wait(*request, 1s);
  ASSERT_TRUE(told.ok());
  EXPECT_EQ(nvme::AsyncEvent::decode(told.dw0()),
            (nvme::AsyncEvent{nvme::AsyncEventType::notice, nvme::kNoticeAnaChange, 0x0c}));
  request = ask(*h);
  set(2, AnaState::optimized);
  EXPECT_GT(ana(*h, 0, /*retain=*/true).change_count, before.change_count);
  loop.run_for(1s);
  EXPECT_FALSE(request->done);  // the log has not been read
  EXPECT_GT(ana(*h).groups[1].change_count, before.groups[1].change_count);
  set(2, AnaState::change);
  EXPECT_TRUE(h->admin().wait(*request, 1s).ok());
}

TEST_F(AnaTest, DiffersByPort) {
  at.port = 4421;
  TestHost& other = host({.hostid = host_id(2)});
  other.bring_up_io();
  auto mine = ask(*h);
  auto theirs = ask(other);
  set(1, AnaState::inaccessible, 2);
  EXPECT_TRUE(other.admin().wait(*theirs, 1s).ok());
  EXPECT_FALSE(mine->done);
  EXPECT_EQ(ana(other).groups[0].state, AnaState::inaccessible);
  EXPECT_EQ(ana(*h).groups[0].state, AnaState::optimized);
  EXPECT_EQ(other.read(0, 1).code(), code_of(StatusCode::ana_inaccessible));
  EXPECT_TRUE(h->read(0, 1).ok());
  set(1, AnaState::optimized);
  EXPECT_TRUE(other.read(0, 1).ok());
}

TEST_F(AnaTest, RefusesWhatIsNotThere) {
  EXPECT_FALSE(target->set_ana_state(kSubsystemNqn, 0, AnaState::change));
  EXPECT_FALSE(target->set_ana_state(kSubsystemNqn, 4, AnaState::change));
  EXPECT_FALSE(target->set_ana_state(kSubsystemNqn, 1, AnaState::change, 3));
  EXPECT_FALSE(target->add_namespace(kSubsystemNqn, in_group(4)));
  EXPECT_FALSE(target->swap_namespace(kSubsystemNqn, 1, in_group(4)));
  ASSERT_TRUE(target->add_namespace(kSubsystemNqn, in_group(3)));
  EXPECT_EQ(ana(*h).groups[2].nsids, (std::vector<std::uint32_t>{4}));
}

class NoAnaTest : public ControllerTest {};

TEST_F(NoAnaTest, IsNotReportedUnlessAskedFor) {
  start(one_subsystem({memory(1 << 20)}));
  TestHost& h = host();
  h.bring_up_io();
  const auto id = h.identify_controller();
  EXPECT_EQ(id.cmic & nvme::kCmicAna, 0);
  EXPECT_EQ(id.oaes & nvme::kOaesAnaChange, 0u);
  EXPECT_EQ(id.anacap, 0);
  EXPECT_EQ(id.nn, 1u);
  EXPECT_EQ(id.mnan, 0u);
  EXPECT_EQ(
      nvme::IdentifyNamespace::decode(h.identify(nvme::Cns::identify_namespace, 1).data).anagrpid,
      0u);
  EXPECT_EQ(h.log(LogPage::ana, 16).code(), code_of(StatusCode::invalid_field));
  EXPECT_FALSE(target->set_ana_state(kSubsystemNqn, 1, AnaState::change));
}

}  // namespace
}  // namespace nvmf::controller
