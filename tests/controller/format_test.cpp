// Format NVM: what it changes, what it waits for, and who is told.
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::LogPage;
using nvme::StatusCode;

class FormatTest : public ControllerTest {
 protected:
  void begin(std::vector<NamespaceConfig> namespaces) {
    start(one_subsystem(std::move(namespaces)));
    h = &host();
    h->bring_up_io();
  }
  Answer format(std::uint8_t lbaf, std::uint32_t nsid = 1, std::uint8_t erase = 0,
                std::uint8_t protection = 0) {
    return h->admin().send(
        nvme::FormatCommand{.nsid = nsid, .format = lbaf, .protection = protection, .erase = erase}
            .to_sqe());
  }
  nvme::IdentifyNamespace identify(std::uint32_t nsid = 1) {
    return nvme::IdentifyNamespace::decode(h->identify(nvme::Cns::identify_namespace, nsid).data);
  }

  TestHost* h = nullptr;
};

TEST_F(FormatTest, IsOffered) {
  begin({memory(1 << 20), memory(1 << 20, 4096), memory(512)});
  const auto id = h->identify_controller();
  EXPECT_NE(id.oacs & nvme::kOacsFormat, 0);
  EXPECT_NE(id.fna & nvme::kFnaNoBroadcast, 0);
  const auto effects = nvme::EffectsLog::decode(h->log(LogPage::effects, 4096).data);
  EXPECT_EQ(effects.acs[0x80], nvme::kEffectSupported | nvme::kEffectLbcc | nvme::kEffectNcc |
                                   nvme::kEffectCseNamespace);
  EXPECT_EQ(identify(1).nlbaf, 1);
  EXPECT_EQ(identify(1).block_bytes(), 512u);
  EXPECT_EQ(identify(2).nlbaf, 1);
  EXPECT_EQ(identify(2).flbas, 1);
  EXPECT_EQ(identify(2).block_bytes(), 4096u);
  EXPECT_EQ(identify(3).nlbaf, 0);  // 4096 does not fit
}

TEST_F(FormatTest, TakesTheDataAndChangesTheBlocks) {
  NamespaceConfig cached = memory(1 << 20);
  cached.volatile_cache = true;
  begin({memory(1 << 20), file("/disk", 1 << 20), cached});
  ASSERT_TRUE(h->admin().send(nvme::set_async_events(nvme::kOaesNamespaceAttributes)).ok());
  for (std::uint32_t nsid = 1; nsid <= 3; ++nsid) {
    SCOPED_TRACE(nsid);
    ASSERT_TRUE(h->write(8, random_bytes(4096, nsid), 512, nsid).ok());
    ASSERT_TRUE(h->io().send(nvme::flush_command(nsid)).ok());
    auto request = h->admin().start(nvme::async_event_request());
    ASSERT_TRUE(format(1, nsid).ok());
    EXPECT_TRUE(h->admin().wait(*request, 1s).ok());
    EXPECT_EQ(nvme::ChangedNamespaces::decode(h->log(LogPage::changed_namespaces, 4096).data).nsids,
              (std::vector<std::uint32_t>{nsid}));
    EXPECT_EQ(identify(nsid).block_bytes(), 4096u);
    EXPECT_EQ(identify(nsid).nsze, 256u);
    EXPECT_EQ(h->read(1, 1, 4096, nsid).data, Bytes(4096));
    EXPECT_EQ(h->read(256, 1, 4096, nsid).code(), code_of(StatusCode::lba_out_of_range));
    const auto block = random_bytes(4096, 9);
    ASSERT_TRUE(h->write(255, block, 4096, nsid).ok());
    EXPECT_EQ(h->read(255, 1, 4096, nsid).data, block);
    ASSERT_TRUE(format(0, nsid, nvme::kEraseUserData).ok());
    EXPECT_EQ(identify(nsid).nsze, 2048u);
    EXPECT_EQ(h->read(2040, 8, 512, nsid).data, Bytes(4096));
    h->log(LogPage::changed_namespaces, 4096);
  }
}

TEST_F(FormatTest, IsStable) {
  NamespaceConfig cached = memory(1 << 20);
  cached.volatile_cache = true;
  begin({cached});
  ASSERT_TRUE(h->write(0, random_bytes(4096, 1)).ok());
  ASSERT_TRUE(h->io().send(nvme::flush_command(1)).ok());
  ASSERT_TRUE(format(0).ok());
  ASSERT_TRUE(
      target->restart({.down = {}, .power_loss = true, .max_queues = {}, .queue_entries = {}}));
  loop.run_for(1s);
  TestHost& next = host();
  next.bring_up_io();
  EXPECT_EQ(next.read(0, 8).data, Bytes(4096));
}

TEST_F(FormatTest, RefusesWhatItCannotDo) {
  begin({memory(1 << 20), memory(512)});
  const auto block = random_bytes(512, 1);
  ASSERT_TRUE(h->write(0, block).ok());
  EXPECT_EQ(format(2).code(), code_of(StatusCode::invalid_format));
  EXPECT_EQ(format(16).code(), code_of(StatusCode::invalid_format));
  EXPECT_EQ(format(1, 2).code(), code_of(StatusCode::invalid_format));
  EXPECT_EQ(format(0, 1, 0, 1).code(), code_of(StatusCode::invalid_format));
  EXPECT_EQ(format(0, 1, nvme::kEraseCryptographic).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(format(0, nvme::kNsidAll).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(format(0, 3).code(), code_of(StatusCode::invalid_namespace));
  EXPECT_EQ(format(0, 0).code(), code_of(StatusCode::invalid_namespace));
  EXPECT_EQ(h->read(0, 1).data, block);
}

TEST_F(FormatTest, WaitsForCommandsUnderWay) {
  begin({memory(1 << 20)});
  target->faults().delay(
      {.scope = {}, .opcode = 1, .before = 500ms, .after = {}, .count = std::uint64_t{1}});
  auto write = h->io().start(nvme::write_command(1, 0, 8), random_bytes(4096, 1));
  loop.run_for(10ms);
  auto format = h->admin().start(nvme::FormatCommand{.nsid = 1, .format = 1}.to_sqe());
  loop.run_for(10ms);
  EXPECT_FALSE(format->done);
  EXPECT_EQ(h->read(0, 1).code(), code_of(StatusCode::format_in_progress));
  EXPECT_EQ(h->io().send(nvme::flush_command(1)).code(), code_of(StatusCode::format_in_progress));
  EXPECT_EQ(h->admin().send(nvme::FormatCommand{.nsid = 1}.to_sqe()).code(),
            code_of(StatusCode::format_in_progress));
  EXPECT_TRUE(h->io().wait(*write, 1s).ok());
  EXPECT_TRUE(h->admin().wait(*format, 1s).ok());
  EXPECT_EQ(h->read(0, 1, 4096).data, Bytes(4096));  // the write came before
}

TEST_F(FormatTest, DoesNotWaitForEver) {
  begin({memory(1 << 20)});
  target->faults().late({.scope = {}, .hold = 1, .after = 1s, .even_if_stopped = false});
  auto held = h->io().start(nvme::write_command(1, 0, 8), random_bytes(4096, 1));
  loop.run_for(10ms);
  EXPECT_EQ(format(1).code(), code_of(StatusCode::command_interrupted));
  EXPECT_EQ(identify().block_bytes(), 512u);
  EXPECT_TRUE(h->read(0, 1).ok());
  target->faults().clear();
  EXPECT_TRUE(h->io().wait(*held, 1s).ok());
}

TEST_F(FormatTest, OutlivesItsHostAndItsNamespace) {
  begin({memory(1 << 20), memory(1 << 20)});
  target->faults().delay(
      {.scope = {}, .opcode = 1, .before = 500ms, .after = {}, .count = std::uint64_t{2}});
  std::vector<std::shared_ptr<Pending>> waiting;
  for (std::uint32_t nsid : {1u, 2u}) {
    waiting.push_back(h->io().start(nvme::write_command(nsid, 0, 8), random_bytes(4096, nsid)));
    loop.run_for(10ms);
    waiting.push_back(h->admin().start(nvme::FormatCommand{.nsid = nsid, .format = 1}.to_sqe()));
  }
  loop.run_for(10ms);
  ASSERT_TRUE(target->remove_namespace(kSubsystemNqn, 2));
  h->drop_all();
  loop.run_for(2s);
  EXPECT_EQ(target->controller_count(), 0u);
  TestHost& next = host();
  next.bring_up_io();
  EXPECT_TRUE(next.read(0, 1).ok());  // it had not begun, and is over
}

TEST_F(FormatTest, EndsBeforeTheControllerIsDisabled) {
  begin({memory(1 << 20)});
  target->faults().delay(
      {.scope = {}, .opcode = {}, .before = 300ms, .after = {}, .count = std::uint64_t{1}});
  auto format = h->admin().start(nvme::FormatCommand{.nsid = 1, .format = 1}.to_sqe());
  loop.run_for(10ms);
  ASSERT_TRUE(h->set_cc({}).ok());
  EXPECT_TRUE(h->csts().rdy);  // the disk is not at rest
  loop.run_for(1s);
  EXPECT_FALSE(h->csts().rdy);
  EXPECT_TRUE(format->done);
  ASSERT_TRUE(h->set_cc(TestHost::enabled()).ok());
  EXPECT_EQ(identify().block_bytes(), 4096u);
}

}  // namespace
}  // namespace nvmf::controller
